"""The forms in which `memory.faiss_index` keeps vectors; nothing else uses them.

exact       every vector as it is, compared with each
inverted    vectors in lists by likeness, a byte for each number, compared with those of the nearest lists
gpu_copy    the exact form's vectors once more on a GPU
files       how either is written and read
form        what both can do, and what they share
"""
