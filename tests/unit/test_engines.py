"""Every engine gives the same vectors, or says that its are others; a model is prepared once, and whole."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.embedding import DEFAULT_MODEL, EmbeddingModel, locate
from memory.engines import cpu, opening, openvino_engine
from memory.engines.engine import Tokenized
from memory.engines.exports import MANIFEST, Export, ExportCache
from memory.engines.near_exact import CHECKED_TEXTS, INT8_MEAN, NEAR_EXACT, cosines
from memory.engines.openvino_engine import WEIGHTS
from memory.engines.passes import Passes
from memory.engines.torch_engine import TorchEngine
from memory.engines.torch_model import TorchModel
from memory.errors import SettingsError
from memory.settings import read_settings

TURNS = [
    json.loads(line)["content"]
    for line in (Path(__file__).parents[2] / "ingest/samples/lighthouse.jsonl").read_text().splitlines()[::5]
]
DIM = 384
HARDWARE = ["float32", "bfloat16"] if cpu.has_bfloat16() else ["float32"]


def shrunk(folder: Path, change: Callable[[Any], None] = lambda _model: None) -> Path:
    """Save the default model without its last five layers, and changed."""
    model: Any = sentence_transformers.SentenceTransformer(locate(DEFAULT_MODEL), device="cpu")
    transformer = model[0].auto_model
    transformer.encoder.layer = transformer.encoder.layer[:1]
    transformer.config.num_hidden_layers = 1
    change(model)
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def small(shared_home: Path) -> Path:
    return shrunk(shared_home / "small")


@pytest.fixture(scope="module")
def exact() -> EmbeddingModel:
    return EmbeddingModel(engine="torch")


@pytest.mark.parametrize("precision", HARDWARE)
def test_openvinos_vectors_are_those_of_torch(exact: EmbeddingModel, precision: Any) -> None:
    model = EmbeddingModel(engine="openvino", precision=precision)
    assert model.engine.name == f"openvino cpu {precision}"
    assert model.fingerprint == exact.fingerprint
    for texts in (list(CHECKED_TEXTS), TURNS):
        assert cosines(model.encode(texts), exact.encode(texts)).min() >= NEAR_EXACT


def test_the_default_model_has_the_name_it_always_had(exact: EmbeddingModel) -> None:
    assert exact.fingerprint == "all-MiniLM-L6-v2@2c705a5e3279/384d/float32/unit"


def test_by_itself_the_fastest_near_exact_engine_is_taken() -> None:
    assert EmbeddingModel().engine.name == f"openvino cpu {HARDWARE[-1]}"


def test_int8_is_near_and_has_another_name(small: Path, exports: tuple[Path, str]) -> None:
    exact = EmbeddingModel(str(small), engine="torch")
    model = EmbeddingModel(str(small), precision="int8", cache=exports[0])
    assert model.engine.name == "openvino cpu int8"
    assert model.fingerprint == exact.fingerprint.replace("float32", "int8")
    assert cosines(model.encode(TURNS), exact.encode(TURNS)).mean() >= INT8_MEAN


def test_half_precision_computes_only_the_transformer_in_half(small: Path) -> None:
    source = TorchModel(str(small))
    before = TorchEngine(source).run(list(TorchEngine(source).tokenize(TURNS).rows))
    engine = TorchEngine(source, precision="float16")
    assert engine.name == "torch cpu float16"
    assert source.model[0].auto_model.dtype == torch.float16
    found = engine.run(list(engine.tokenize(TURNS).rows))
    assert found.dtype == np.float32
    assert cosines(found, before).min() >= NEAR_EXACT
    assert (found != before).any()


def test_half_precision_that_is_too_coarse_is_refused_and_undone(small: Path) -> None:
    source = TorchModel(str(small))
    with torch.no_grad():
        source.model[0].auto_model.embeddings.LayerNorm.weight *= 1e5  # past what float16 can hold
    weights = {key: tensor.clone() for key, tensor in source.model.state_dict().items()}
    with pytest.raises(SettingsError, match=r"^EMBEDDING_PRECISION = 'float16': must be auto or float32 for"):
        TorchEngine(source, precision="float16")
    assert all(torch.equal(weights[key], tensor) for key, tensor in source.model.state_dict().items())


def test_operations_are_counted_by_the_weights_that_multiply(exact: EmbeddingModel) -> None:
    assert isinstance(exact.engine, TorchEngine)
    layer = 4 * 384 * 384 + 2 * 384 * 1536
    assert exact.engine.flop_per_token == 2 * (6 * layer + 384 * 384)  # six layers, and BERT's pooler


@pytest.fixture(scope="module")
def tokenizers(small: Path) -> tuple[Any, Any]:
    return EmbeddingModel(str(small), engine="openvino").engine, EmbeddingModel(
        str(small), engine="torch"
    ).engine


@given(st.lists(st.text(max_size=300), min_size=1, max_size=5), st.integers(1, 120))
@settings(max_examples=200)
def test_both_engines_cut_any_text_into_the_same_word_pieces(
    tokenizers: tuple[Any, Any], texts: list[str], times: int
) -> None:
    openvino, with_torch = tokenizers
    texts.append(texts[0] * times)
    found, expected = openvino.tokenize(texts), with_torch.tokenize(texts)
    assert list(found.rows) == [row["input_ids"] for row in expected.rows]
    assert found.lengths == expected.lengths
    assert max(found.lengths) <= 256
    assert list(found.full) == list(expected.full)
    for text in texts:
        windows = openvino.split(text)
        assert windows == with_torch.split(text)
        assert "".join(text.split()) in "".join("".join(windows).split()) or len(windows) > 1


def _other_pooling(model: Any) -> None:
    model[1].pooling_mode = ("cls", "max")
    model[1].pooling_output_dimension = 2 * DIM
    model.max_seq_length = 20


@pytest.mark.parametrize("change", [pytest.param(_other_pooling, id="first and most, of 20 word pieces")])
def test_whatever_makes_a_vector_of_the_word_pieces_is_exported_too(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    name = str(shrunk(tmp_path / "model", change))
    openvino, with_torch = EmbeddingModel(name, engine="openvino"), EmbeddingModel(name, engine="torch")
    assert openvino.fingerprint == with_torch.fingerprint
    assert cosines(openvino.encode(TURNS), with_torch.encode(TURNS)).min() >= NEAR_EXACT


def _prompted(model: Any) -> None:
    model.prompts = {"query": "query: "}
    model.default_prompt_name = "query"


def test_a_model_that_cannot_be_exported_is_run_by_torch_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, cache = str(shrunk(tmp_path / "model", _prompted)), tmp_path / "models"
    plain = EmbeddingModel(str(shrunk(tmp_path / "plain")), engine="torch")
    model = EmbeddingModel(name, cache=cache)
    assert model.engine.name == "torch cpu float32"
    np.testing.assert_allclose(model.encode(["a text"]), plain.encode(["query: a text"]), atol=1e-6)
    [manifest] = cache.glob(f"*/{MANIFEST}")
    assert json.loads(manifest.read_text())["refused"] == "it has a prompt"
    monkeypatch.setattr(opening, "export", lambda *_a, **_k: pytest.fail("exported again"))
    for asked in ({"engine": "openvino"}, {"precision": "int8"}):
        with contextlib.suppress(pytest.fail.Exception), pytest.raises(SettingsError, match="has a prompt"):
            EmbeddingModel(name, cache=cache, **asked)  # type: ignore[arg-type]


def test_a_model_with_a_prompt_reads_long_texts_in_windows_that_leave_room_for_it(tmp_path: Path) -> None:
    model = EmbeddingModel(str(shrunk(tmp_path / "model", _prompted)), n_threads=1, engine="torch")
    text = "Some words that go on and on, sentence by sentence. " * 80
    [vectors] = model.encode_windows([text])
    parts = model.engine.split(text)
    tokenizer = TorchModel(model.name).model.tokenizer
    lengths = [len(tokenizer(f"query: {part}")["input_ids"]) for part in parts]
    assert len(vectors) == len(parts) > 3
    assert 200 < max(lengths) <= 256
    np.testing.assert_allclose(vectors, model.encode(parts), atol=1e-6)
    assert len(model.encode_windows(["a " * 100])[0]) == 1


def test_a_converter_that_fails_is_a_reason_not_a_crash(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any) -> None:
        message = "no such operation:\n  aten::strange"
        raise NotImplementedError(message)

    monkeypatch.setattr(openvino_engine, "write_graph", fail)
    assert EmbeddingModel(str(small), cache=tmp_path).engine.name == "torch cpu float32"
    with pytest.raises(SettingsError) as refusal:
        EmbeddingModel(str(small), cache=tmp_path, engine="openvino")
    assert str(refusal.value) == (
        "EMBEDDING_ENGINE = 'openvino': must be auto or torch here: "
        "the model cannot be exported: NotImplementedError: no such operation: aten::strange"
    )


def test_vectors_that_are_not_near_enough_are_not_taken(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "NEAR_EXACT", 1.1)
    assert EmbeddingModel(str(small), cache=tmp_path).engine.name == "torch cpu float32"
    with pytest.raises(SettingsError, match=r"not near enough to torch's float32 \(cosine float32 1\.0"):
        EmbeddingModel(str(small), cache=tmp_path, precision="float32", engine="openvino")


def test_what_this_machine_lacks_is_a_reason(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    with pytest.raises(SettingsError, match=r"^EMBEDDING_PRECISION = 'bfloat16': .*none of avx512_bf16"):
        EmbeddingModel(str(small), precision="bfloat16")
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    assert EmbeddingModel(str(small)).engine.name == "torch cpu float32"
    with pytest.raises(SettingsError, match=r"^EMBEDDING_ENGINE = 'openvino': .*is not installed$"):
        EmbeddingModel(str(small), engine="openvino")


def test_without_nncf_int8_is_refused_unless_it_was_made_before(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "can_quantise", lambda: False)
    with pytest.raises(SettingsError, match=r"EMBEDDING_PRECISION = 'int8': .*everkept\[int8\]"):
        EmbeddingModel(str(small), precision="int8", cache=tmp_path)


def test_the_processor_is_read_as_linux_tells_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text(
        "processor\t: 0\nmodel name\t: A\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t: amx_bf16\n"
    )
    new.write_text("processor\t: 0\nmodel name\t: B\nflags\t\t: fpu avx512_bf16\n")
    assert not cpu.has_bfloat16(old)
    assert cpu.has_bfloat16(new)
    assert not cpu.has_bfloat16(tmp_path / "none")
    assert len({cpu.signature(old), cpu.signature(new), cpu.signature(tmp_path / "none")}) == 3


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"EMBEDDING_ENGINE": "onnx"}, "EMBEDDING_ENGINE = 'onnx': must be 'auto', 'torch' or 'openvino'"),
        (
            {"EMBEDDING_ENGINE": "openvino", "USE_GPU": "1"},
            "EMBEDDING_ENGINE = 'openvino': must be auto or torch where USE_GPU = True",
        ),
        (
            {"EMBEDDING_PRECISION": "float16"},
            "EMBEDDING_PRECISION = 'float16': must be auto, float32, bfloat16 or int8 "
            "where USE_GPU = False and EMBEDDING_ENGINE = auto",
        ),
        (
            {"EMBEDDING_PRECISION": "int8", "EMBEDDING_ENGINE": "torch"},
            "EMBEDDING_PRECISION = 'int8': must be auto or float32 "
            "where USE_GPU = False and EMBEDDING_ENGINE = torch",
        ),
        (
            {"EMBEDDING_PRECISION": "int8", "USE_GPU": "1"},
            "EMBEDDING_PRECISION = 'int8': must be auto, float32, bfloat16 or float16 "
            "where USE_GPU = True and EMBEDDING_ENGINE = auto",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_does(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert str(refusal.value) == message


def test_the_library_refuses_it_in_the_same_words() -> None:
    with pytest.raises(SettingsError, match=r"^EMBEDDING_ENGINE = 'openvino': must be auto or torch where"):
        EmbeddingModel(engine="openvino", use_gpu=True)
    with pytest.raises(SettingsError, match=r"^EMBEDDING_PRECISION = 'float16': must be auto, float32, b"):
        EmbeddingModel(precision="float16")


WATCHED = """
import socket, sys

def forbidden(*_args, **_kwargs):
    raise AssertionError("a look at the network")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = forbidden
from memory.embedding import EmbeddingModel

for precision in {precisions}:
    model = EmbeddingModel({name!r}, precision=precision)
    assert model.encode(["a text"]).shape == (1, model.embedding_dim)
print([name for name in {unwanted} if name in sys.modules])
"""


@pytest.fixture(scope="module")
def exports(small: Path, shared_home: Path) -> tuple[Path, str]:
    """Exported models, and which unwanted modules the process that made them had loaded."""
    unwanted = ("openvino_telemetry", "requests")
    program = WATCHED.format(name=str(small), precisions=["auto", "int8"], unwanted=unwanted)
    return shared_home / "exports", _python(program, EMBEDDING_CACHE=str(shared_home / "exports"))


def test_no_import_and_no_export_ever_looks_at_the_network(exports: tuple[Path, str]) -> None:
    cache, loaded = exports
    assert len(list(cache.glob(f"*/{MANIFEST}"))) == 2
    assert loaded == "[]\n"


def test_a_prepared_model_starts_without_torch(small: Path, exports: tuple[Path, str]) -> None:
    unwanted = ("torch", "transformers", "sentence_transformers", "nncf", "openvino_telemetry", "faiss")
    program = WATCHED.format(name=str(small), precisions=["auto", "int8"], unwanted=unwanted)
    assert _python(program, EMBEDDING_CACHE=str(exports[0])) == "[]\n"


HEARING_A_SIGNAL = """
import gc, os, signal, threading
from memory.embedding import EmbeddingModel

def model():
    return EmbeddingModel({name!r}, engine="openvino")

first, second = model(), model()
del first
gc.collect()
del second
gc.collect()
thread = threading.Thread(target=lambda: model().encode(["a text"]))
thread.start()
thread.join()
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("heard"))
os.kill(os.getpid(), signal.SIGTERM)
print(*heard)
"""


def test_a_signal_is_survived_after_several_models_came_and_went(
    small: Path, exports: tuple[Path, str]
) -> None:
    program = HEARING_A_SIGNAL.format(name=str(small))
    assert _python(program, EMBEDDING_CACHE=str(exports[0])) == "heard\n"


def _python(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def _export(folder: Path, word: bytes = b"weights") -> Export:
    (folder / WEIGHTS).write_bytes(word)
    return Export(engine_version="1", digest="d", dim=3, cosines={"float32": 1.0})


def test_an_export_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> Export:
        made.append(folder)
        return _export(folder)

    first = ExportCache(tmp_path / "models").get("key", make=make)
    again = ExportCache(tmp_path / "models").get("key", make=make)
    assert first == again
    assert len(made) == 1
    assert (again.directory / WEIGHTS).read_bytes() == b"weights"


def _flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda entry: _flip(entry / WEIGHTS), id="a bit"),
        pytest.param(lambda entry: os.truncate(entry / WEIGHTS, 3), id="torn"),
        pytest.param(lambda entry: (entry / WEIGHTS).unlink(), id="a file gone"),
        pytest.param(lambda entry: (entry / MANIFEST).unlink(), id="no manifest"),
        pytest.param(lambda entry: os.truncate(entry / MANIFEST, 10), id="a torn manifest"),
        pytest.param(lambda entry: (entry / MANIFEST).write_text("[]"), id="another manifest"),
        pytest.param(lambda entry: (entry / MANIFEST).write_text('{"format": 99}'), id="a later format"),
    ],
)
def test_a_damaged_export_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    cache = ExportCache(tmp_path)
    entry = cache.get("key", make=_export)
    damage(entry.directory)
    assert cache.find("key") is None
    assert cache.get("key", make=_export) == entry == cache.find("key")


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> Export:
        _export(folder)
        message = "no"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError):
        ExportCache(tmp_path).get("key", make=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


def _die(directory: Path) -> None:
    def half(folder: Path) -> Export:
        (folder / WEIGHTS).write_bytes(b"wei")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    ExportCache(directory).get("key", make=half)


def test_an_export_that_is_killed_is_made_anew_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path,))
    process.start()
    process.join(timeout=30)
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob("key.tmp-*"))) == 1
    assert ExportCache(tmp_path).find("key") is None
    ExportCache(tmp_path).get("key", make=_export)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.lock"]


def test_what_another_version_made_is_removed_when_this_one_makes_its_own(tmp_path: Path) -> None:
    cache = ExportCache(tmp_path)
    old, same = cache.get("old", make=_export), cache.get("same", make=lambda f: _new(f, "2"))
    assert not old.directory.exists()
    cache.get("key", make=lambda f: _new(f, "2"))
    assert same.directory.exists()


def _new(folder: Path, version: str) -> Export:
    _export(folder)
    return Export(engine_version=version)


EXPORTING = """
import sys
from memory.engines import opening
real = opening.export

def export(*args, **kwargs):
    print("exports")
    return real(*args, **kwargs)

opening.export = export
from memory.embedding import EmbeddingModel
print(EmbeddingModel(sys.argv[1]).engine.name)
"""


def test_of_processes_that_start_at_once_one_exports(small: Path, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORTING, str(small)],
            env={**os.environ, "EMBEDDING_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = "".join(process.communicate(timeout=120)[0] for process in processes)
    assert said.count("exports\n") == 1
    assert said.count("openvino cpu ") == 3


@pytest.mark.parametrize("also_temporary", [False, True])
def test_a_cache_that_cannot_be_written_costs_the_start_its_time_and_nothing_else(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also_temporary: bool
) -> None:
    (tmp_path / "file").write_text("no directory")
    if also_temporary:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    model = EmbeddingModel(str(small), cache=tmp_path / "file" / "models")
    expected = "torch cpu float32" if also_temporary else f"openvino cpu {HARDWARE[-1]}"
    assert model.engine.name == expected
    assert model.encode(["a text"]).shape == (1, 384)


def test_a_changed_model_is_another_export(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    before = EmbeddingModel(str(folder), cache=tmp_path / "models")
    source: Any = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    with torch.no_grad():
        source[0].auto_model.embeddings.word_embeddings.weight += 0.01
    source.save(str(folder))
    after = EmbeddingModel(str(folder), cache=tmp_path / "models")
    assert before.fingerprint != after.fingerprint
    assert len(list((tmp_path / "models").glob(f"*/{MANIFEST}"))) == 2


MOST = 60


class Counting:
    """An engine whose vectors are the texts' lengths, and which notes what it was asked for."""

    name, digest, family, dim = "counting", "c", "float32", 2
    batch_tokens, chunk = 40, 10

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.chunks: list[int] = []

    def tokenize(self, texts: list[str]) -> Tokenized:
        self.chunks.append(len(texts))
        texts = [text[:MOST] for text in texts]
        full = [place for place, text in enumerate(texts) if len(text) == MOST]
        return Tokenized([len(text) for text in texts], texts, full)

    def split(self, text: str) -> list[str]:
        return [text[begin : begin + MOST] for begin in range(0, len(text), MOST - 10)]

    def run(self, rows: list[Any]) -> Any:
        self.passes.append(len(rows) * max(map(len, rows)))
        return np.array([[len(row), 1] for row in rows], dtype=np.float32)

    def is_out_of_memory(self, _error: Exception) -> bool:
        return False

    def free_memory(self) -> None: ...


@given(st.lists(st.integers(1, 60), min_size=1, max_size=95))
@settings(max_examples=50)
def test_many_texts_are_cut_in_chunks_ahead_of_their_passes_and_come_back_in_order(
    lengths: list[int],
) -> None:
    engine = Counting()
    found = Passes(engine).vectors(["x" * n for n in lengths], max_rows=1000, on_pass=lambda: None)
    assert found[:, 0].tolist() == lengths
    assert sum(engine.chunks) == len(lengths)
    assert max(engine.chunks) <= engine.chunk
    assert max(engine.passes) <= max(engine.batch_tokens, *lengths)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=35))
@settings(max_examples=50)
def test_windows_of_long_texts_come_back_with_their_texts(lengths: list[int]) -> None:
    engine = Counting()
    texts = ["x" * n for n in lengths]
    found, counts = Passes(engine).windows(texts, max_rows=1000, on_pass=lambda: None)
    parts = [engine.split(text) if len(text) >= MOST else [text] for text in texts]
    assert found[:, 0].tolist() == [len(part) for some in parts for part in some]
    assert counts == [len(some) for some in parts]
    assert max(engine.passes) <= MOST


def test_between_two_passes_other_texts_may_be_embedded() -> None:
    engine = Counting()
    passes, served = Passes(engine), []

    def serve() -> None:
        served.append(passes.vectors(["urgent"], max_rows=1, on_pass=serve)[0, 0])

    found = passes.vectors(["x" * 30] * 25, max_rows=1000, on_pass=serve)
    assert found[:, 0].tolist() == [30] * 25
    assert served == [6] * 25


def test_what_fails_between_two_passes_ends_the_batch_and_nothing_more() -> None:
    passes = Passes(Counting())
    with pytest.raises(ZeroDivisionError):
        passes.vectors(["x" * 30] * 25, max_rows=1000, on_pass=lambda: print(1 / 0))
    told: list[int] = []
    passes.vectors(["x" * 30] * 2, max_rows=1000, on_pass=lambda: told.append(1))
    assert told == [1, 1]
