"""Two usual designs that lose memories, kept small on purpose: the harness must convict both.

naive-celery    each memory is a Celery message with acks_late; a task embeds it and inserts a row. A worker
                that is killed between taking a message from Redis and noting that it did loses it.
naive-cursor    rows are fine, but the indexer follows `seq > last` of an identity column. Two writers commit
                in another order than they were numbered, and the cursor has passed the later one.
"""
