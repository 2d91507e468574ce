"""The door to embedding models, with the real default model: what it gives, and what it refuses."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from memory.embedding import DEFAULT_MODEL, EmbeddingModel, locate
from memory.engines import torch_model
from memory.engines.passes import Passes
from memory.errors import InvalidMemory, SettingsError

DIM = 384
ROUNDING = 1e-6  # float32 sums differ by how a pass is padded
ENGINES = ("torch", "openvino")
TEXTS = [
    "The cat sleeps on the warm stove.",
    "A kitten naps beside the oven.",
    "The central bank raised interest rates.",
    "",
    "雪が降っている。",
    "A longer one, of several sentences. " * 5,
    "The cat sleeps on the warm stove.",
]


@pytest.fixture(scope="module", params=ENGINES)
def model(request: pytest.FixtureRequest) -> EmbeddingModel:
    # On a busy machine, several threads of one pass would wait for each other.
    return EmbeddingModel(n_threads=1, engine=request.param, precision="float32")


def test_each_text_becomes_a_row_of_length_1_in_input_order(model: EmbeddingModel) -> None:
    vectors = model.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=ROUNDING)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(model.encode([text])[0], vector, atol=ROUNDING)


def test_the_dimension_is_that_of_the_vectors(model: EmbeddingModel) -> None:
    assert model.embedding_dim == DIM
    assert f"/{DIM}d/" in model.fingerprint


def test_no_texts_become_no_rows(model: EmbeddingModel) -> None:
    assert model.encode([]).shape == (0, DIM)


def test_a_text_is_read_up_to_what_the_model_can_read(model: EmbeddingModel) -> None:
    some, more, most = model.encode(["word " * n for n in (10, 500, 5000)])
    np.testing.assert_allclose(more, most, atol=ROUNDING)
    assert some @ more < 1 - ROUNDING


def test_a_long_text_is_read_whole_window_by_window(model: EmbeddingModel) -> None:
    filler = "Nothing of interest was said about the weather that day, and the guests went home early. "
    needle = "The key of the lighthouse lies under the third stone. "
    texts = ["short", filler * 60 + needle + filler * 60, "", filler * 40 + needle]
    windows = model.encode_windows(texts)
    assert [len(vectors) > 1 for vectors in windows] == [False, True, False, True]
    for text, vectors in zip(texts, windows, strict=True):
        parts = model.engine.split(text)
        assert all(part in text for part in parts)
        np.testing.assert_allclose(vectors, model.encode(parts), atol=ROUNDING)
    [query] = model.encode(["Where is the key to the lighthouse?"])
    for text, vectors in zip(texts[1::2], windows[1::2], strict=True):
        assert needle.strip() in model.engine.split(text)[int(np.argmax(vectors @ query))]
    assert [len(vectors) for vectors in windows] == [1, 11, 1, 4]


def test_whatever_is_asked_whole_is_the_same_where_texts_fit(model: EmbeddingModel) -> None:
    np.testing.assert_allclose(
        np.concatenate(model.encode_windows(TEXTS)), model.encode(TEXTS), atol=ROUNDING
    )
    assert model.encode_windows([]) == []
    with pytest.raises(InvalidMemory, match="a list of texts"):
        model.encode_windows("one text")


@pytest.mark.parametrize("batch_size", [1, 2, 3, len(TEXTS), 1000])
def test_the_batch_size_changes_no_vector(model: EmbeddingModel, batch_size: int) -> None:
    expected = model.encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS, batch_size), expected, atol=ROUNDING)
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=batch_size), expected, atol=ROUNDING)


def test_a_pass_takes_no_more_texts_than_the_batch_size(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    monkeypatch.setattr(model, "on_pass", lambda: passes.append(1))
    model.encode(TEXTS, 2)
    assert len(passes) >= len(TEXTS) / 2


@pytest.mark.parametrize("make", [tuple, np.array, iter], ids=["tuple", "array", "iterator"])
def test_texts_may_come_in_anything_that_has_an_order(model: EmbeddingModel, make: Any) -> None:
    assert model.encode(make(TEXTS)).tobytes() == model.encode(TEXTS).tobytes()


@pytest.mark.parametrize("texts", ["abc", "", b"abc", None, 5, {"abc"}, {"abc": 1}], ids=repr)
def test_what_is_no_list_of_texts_is_refused(model: EmbeddingModel, texts: Any) -> None:
    for call in (model.encode, lambda texts: model.get_most_similar("query", texts)):
        with pytest.raises(InvalidMemory, match=r"^texts = .*: must be a list of texts$"):
            call(texts)


@pytest.mark.parametrize("text", [None, 5, b"abc", ["abc"], 1.5, "\ud800"], ids=ascii)
def test_what_is_no_text_is_refused_by_its_place(model: EmbeddingModel, text: Any) -> None:
    with pytest.raises(InvalidMemory, match=r"^texts\[1\] = .*: must be text"):
        model.encode(["fine", text])
    with pytest.raises(InvalidMemory, match=r"^texts\[1\] = .*: must be text"):
        model.get_most_similar("query", ["fine", text])
    with pytest.raises(InvalidMemory, match=r"^query\[0\] = .*: must be text"):
        model.get_most_similar(text, ["fine"])
    with pytest.raises(InvalidMemory, match=r"^texts\[1\] = .*: must be text"):
        model.get_similarity("fine", text)


@pytest.mark.parametrize("number", [0, -1])
def test_a_bound_below_one_is_refused(model: EmbeddingModel, number: int) -> None:
    with pytest.raises(InvalidMemory, match=rf"^batch_size = {number}: must be at least 1"):
        model.encode(["a"], number)
    with pytest.raises(InvalidMemory, match=rf"^top_k = {number}: must be at least 1"):
        model.get_most_similar("a", ["a"], number)


def test_texts_of_one_meaning_are_more_similar_than_texts_of_two(model: EmbeddingModel) -> None:
    cat, kitten, bank = TEXTS[:3]
    assert model.get_similarity(cat, kitten) > model.get_similarity(cat, bank) + 0.2
    assert model.get_similarity(cat, kitten) == pytest.approx(model.get_similarity(kitten, cat), abs=ROUNDING)


@pytest.mark.parametrize("text", TEXTS[:5])
def test_a_text_is_as_similar_to_itself_as_can_be(model: EmbeddingModel, text: str) -> None:
    assert 1 - ROUNDING <= model.get_similarity(text, text) <= 1
    assert model.get_most_similar(text, [text])[0][1] <= 1


def test_the_most_similar_texts_come_first_each_by_its_place(model: EmbeddingModel) -> None:
    cat, kitten, bank = TEXTS[:3]
    found = model.get_most_similar("Where does the cat sleep?", [bank, kitten, cat], threshold=-1)
    assert [place for place, _ in found] == [2, 1, 0]
    for place, score in found:
        text = [bank, kitten, cat][place]
        expected = model.get_similarity("Where does the cat sleep?", text)
        assert score == pytest.approx(expected, abs=ROUNDING)


def test_no_more_than_top_k_and_none_below_the_threshold_are_found(model: EmbeddingModel) -> None:
    query = "Where does the cat sleep?"
    every = model.get_most_similar(query, TEXTS, len(TEXTS), -1.0)
    assert len(every) == len(TEXTS)
    assert model.get_most_similar(query, TEXTS, 2, -1.0) == every[:2]
    least = every[2][1]
    assert model.get_most_similar(query, TEXTS, 1000, least) == every[:3]
    assert model.get_most_similar(query, TEXTS, top_k=5, threshold=0.0) == model.get_most_similar(
        query, TEXTS
    )
    assert model.get_most_similar(query, []) == []
    assert model.get_most_similar(query, TEXTS, 5, 1.1) == []


def test_threads_that_encode_at_once_get_the_vectors_they_get_alone(model: EmbeddingModel) -> None:
    lists = [[f"{text} {thread}" for text in TEXTS] for thread in range(8)]
    alone = [model.encode(texts, 3) for texts in lists]
    start = threading.Barrier(8)

    def encode(texts: list[str]) -> Any:
        start.wait()
        return model.encode(texts, 3)

    with ThreadPoolExecutor(8) as pool:
        for together, expected in zip(pool.map(encode, lists), alone, strict=True):
            np.testing.assert_allclose(together, expected, atol=ROUNDING)


class _OneAtATime:
    """An engine whose model and tokenizer each refuse to be used by two threads at once."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._in_use = {"tokenize": threading.Lock(), "run": threading.Lock()}

    def tokenize(self, texts: list[str]) -> Any:
        return self._alone("tokenize", texts)

    def run(self, rows: list[Any]) -> Any:
        return self._alone("run", rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _alone(self, name: str, texts: list[Any]) -> Any:
        assert self._in_use[name].acquire(blocking=False), "Already borrowed"
        try:
            return getattr(self._engine, name)(texts)
        finally:
            self._in_use[name].release()


def test_the_model_is_never_used_by_two_threads_at_once(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_passes", Passes(_OneAtATime(model.engine)))
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: model.encode(TEXTS[:5] * 3, 1), range(8)))) == 8


def test_a_short_call_need_not_wait_for_the_end_of_a_long_one(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(model, "on_pass", lambda: None)
    with ThreadPoolExecutor(1) as pool:

        def ask_in_between() -> None:
            model.on_pass = lambda: None
            found.append(pool.submit(model.encode, ["short"]).result(timeout=60).shape)

        model.on_pass = ask_in_between
        model.encode(TEXTS, 1)
    assert found == [(1, DIM)]


def test_a_model_that_only_looks_words_up_is_one_too(tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "cat": 1, "dog": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.array([[1, 1, 1], [3, 0, 0], [0, 0, 2]], dtype=np.float32)
    static = StaticEmbedding(tokenizer, embedding_weights=weights)
    sentence_transformers.SentenceTransformer(modules=[static]).save(str(tmp_path / "words"))
    model = EmbeddingModel(str(tmp_path / "words"))
    assert model.embedding_dim == 3
    assert model.encode(["dog", "cat cat"]).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(
        InvalidMemory, match=r"^embedding 0 = 0.0: must be a vector that is finite and not zero"
    ):
        model.encode([""])


def test_a_weight_that_is_a_single_number_counts_in_the_fingerprint() -> None:
    one, other = torch.nn.Module(), torch.nn.Module()
    one.register_parameter("scale", torch.nn.Parameter(torch.tensor(1.0)))
    other.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.0)))
    assert torch_model.digest(one) != torch_model.digest(other)


def test_a_model_has_the_same_fingerprint_wherever_it_lies(model: EmbeddingModel, tmp_path: Path) -> None:
    shutil.copytree(locate(model.name), tmp_path / model.name)
    assert EmbeddingModel(str(tmp_path / model.name)).fingerprint == model.fingerprint


def _cut(file: str, *, n_bytes: int) -> Callable[[Path], None]:
    def cut(directory: Path) -> None:
        (directory / file).write_bytes((directory / file).read_bytes()[:n_bytes])

    return cut


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda directory: (shutil.rmtree(directory), directory.mkdir()),
        lambda directory: (shutil.rmtree(directory), directory.write_text("a file")),
        lambda directory: (directory / "config.json").unlink(),
        lambda directory: (directory / "model.safetensors").unlink(),
        lambda directory: shutil.rmtree(directory / "1_Pooling"),
        lambda directory: (directory / "modules.json").write_text("{}"),
        _cut("modules.json", n_bytes=50),
        _cut("tokenizer.json", n_bytes=500),
        _cut("model.safetensors", n_bytes=0),
        _cut("model.safetensors", n_bytes=5_000_000),
    ],
    ids=[
        "missing",
        "empty",
        "a file",
        "no config",
        "no weights",
        "no pooling",
        "no modules",
        "torn modules",
        "torn tokenizer",
        "empty weights",
        "torn weights",
    ],
)
def test_a_directory_without_a_whole_model_is_refused_in_one_sentence(
    tmp_path: Path, damage: Callable[[Path], Any], hub_that_is_down: str
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(locate("all-MiniLM-L6-v2"), directory)
    damage(directory)
    with pytest.raises(SettingsError) as refusal:
        EmbeddingModel(str(directory))
    assert str(refusal.value).startswith(f"EMBEDDING_MODEL = {str(directory)!r}: must be a directory with")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def hub_that_is_down(monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    return url


@pytest.fixture
def hub_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(torch_model, "_HUB_TIMEOUT_S", 0.2)
        yield url


@pytest.mark.parametrize("hub", ["hub_that_is_down", "hub_that_is_silent"])
@pytest.mark.parametrize(
    "name", ["no-such/model-at-all", "no-such-model", "not a name", "./none", "", "a/b/c"]
)
def test_a_name_that_cannot_be_fetched_is_refused_in_one_sentence_within_seconds(
    request: pytest.FixtureRequest, hub: str, name: str
) -> None:
    url = request.getfixturevalue(hub)
    began_at = time.monotonic()
    with pytest.raises(SettingsError) as refusal:
        EmbeddingModel(name)
    assert time.monotonic() - began_at < 30
    assert str(refusal.value).startswith(f"EMBEDDING_MODEL = {name!r}: must be ")
    assert "\n" not in str(refusal.value)
    assert f"{url} does not answer" in str(refusal.value) or name == ""


def test_a_directory_is_loaded_without_a_look_at_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: Any, **_kwargs: Any) -> Any:
        message = "a look at the network"
        raise AssertionError(message)

    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(torch_model, "_hub_problem", connect)
    assert EmbeddingModel(locate("all-MiniLM-L6-v2")).embedding_dim == DIM


def test_without_a_gpu_a_model_on_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        SettingsError, match=r"^USE_GPU = True: must be False here, torch finds no CUDA device$"
    ):
        EmbeddingModel(use_gpu=True)


@pytest.mark.parametrize(("use_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_model_lies_where_it_was_asked_to(
    monkeypatch: pytest.MonkeyPatch, use_gpu: bool, device: str
) -> None:
    real, devices = sentence_transformers.SentenceTransformer, []

    def on_the_cpu(source: str, *, device: str, **kwargs: Any) -> Any:
        devices.append(device)
        return real(source, device="cpu", **kwargs)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", on_the_cpu)
    EmbeddingModel(use_gpu=use_gpu, engine="torch")
    assert devices == [device]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _model: None, id="nothing"),
        pytest.param(lambda model: setattr(model, "max_seq_length", 16), id="its length"),
        pytest.param(lambda model: setattr(model[1], "pooling_mode", "max"), id="its pooling"),
    ],
)
def test_a_model_that_makes_other_vectors_of_the_same_weights_has_another_fingerprint(
    change: Callable[[Any], None], model: EmbeddingModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    changed = sentence_transformers.SentenceTransformer(locate(DEFAULT_MODEL), device="cpu")
    change(changed)
    folder = tmp_path / DEFAULT_MODEL
    changed.save(str(folder))
    same = request.node.callspec.id.endswith("nothing")
    assert (EmbeddingModel(str(folder)).fingerprint == model.fingerprint) is same
