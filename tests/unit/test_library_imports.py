"""What imports bring along: the library neither broker nor torch, the client no model and no index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BLOCKED = ("celery", "kombu", "redis", "torch", "sentence_transformers")

WITHOUT = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Blocked())
"""

IMPORTED = """
from memory.embedding import EmbeddingModel
from memory.faiss_index import FAISSIndex
from memory.memory_manager import MemoryManager
from memory.models import Memory, MemoryAssociation, MemoryType
"""

USED = """
import numpy as np

class Letters:
    fingerprint = "letters@1/26d/float32/unit"
    embedding_dim = 26

    def encode(self, texts):
        counts = [[1 + text.count(chr(97 + n)) for n in range(26)] for text in texts]
        rows = np.array(counts, dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

with MemoryManager("sqlite:///memories.db", Letters()) as manager:
    manager.add_memory("a red kite", MemoryType.TASK)
    manager.add_memory("zzzzzz", MemoryType.TASK)
    print(manager.search_memories("a red kite")[0]["memory"].content)
"""

PRINT_LOADED = f"""
import sys
print([name for name in {(*BLOCKED, "transformers")} if name in sys.modules])
"""


def test_the_library_imports_and_works_without_broker_and_torch(tmp_path: Path) -> None:
    assert _python(WITHOUT + IMPORTED + USED, tmp_path) == "a red kite\n"


def test_importing_the_library_loads_neither_broker_nor_torch(tmp_path: Path) -> None:
    assert _python(IMPORTED + PRINT_LOADED, tmp_path) == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_importing_the_client_loads_nothing_of_models_and_indexes(tmp_path: Path) -> None:
    heavy = ("torch", "sentence_transformers", "tokenizers", "openvino", "regex", "faiss", "pyarrow", "ijson")
    loaded = f"import sys\nimport api_stub.client\nprint([n for n in {heavy} if n in sys.modules])"
    assert _python(loaded, tmp_path) == "[]\n"


def _python(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
