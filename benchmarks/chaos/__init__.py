"""Kills, pauses, fills and corrupts a whole running stack under load, then counts what became of each memory.

plan         what a run is to do: the workload's size, which faults, in which order, from one seed
run          one run: start a stack, put load and faults on it, let it come to rest, examine what is there
stack        one running stack and its processes: find them, see them ready again
product      the pipeline itself, as the harness sees it
pace         ties faults and workload together: what lasts as long as what
workload     producers that enqueue (drafts, poison), revise, delete, clean up and search (operations)
ledger       what is known of each memory, in Jepsen's words: acknowledged, failed or indeterminate
faults       one thread a victim, that does its faults in the order of the plan
snapshots    what is done to the index's files while the indexer is dead
recovery     how long after a kill a new memory is searchable again
examination  what became of it all: lost, duplicated, resurrected, drifted
saved_index  the index that a clean stop left on disk, byte by byte
table        the result in words
naive/       two pipelines that lose memories, which the same harness must convict
"""
