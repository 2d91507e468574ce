"""What the benchmarks reckon with: quantiles, shares, vectors that are always the same, exact answers."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import known_peak_tflops, total_flop
from benchmarks.null_embedder import NullEmbedder
from benchmarks.rig.command import NotPossible
from benchmarks.rig.corpus import FILTERS, drafts
from benchmarks.rig.figures import in_ms, medians, quantile, rounded
from benchmarks.rig.question_sets import Question, evidence_keys, read_question_set
from benchmarks.rig.retrieval_metrics import scored
from benchmarks.rig.softmax_fit import fitted
from benchmarks.rig.stored import StoredVectors, overlap
from benchmarks.rig.texts import corpus_sentences, queries, sample_texts
from benchmarks.rig.waiting import NotInTime, wait_for
from benchmarks.synthetic_embedder import SyntheticEmbedder, save_base


def test_a_quantile_is_a_value_that_was_measured_and_that_the_share_does_not_pass() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert quantile([7.0], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_seconds_are_shown_in_milliseconds_with_their_number() -> None:
    assert in_ms([0.001, 0.002, 0.0301]) == {"p50 ms": 2, "p99 ms": 30.1, "longest ms": 30.1, "n": 3}


def test_medians_are_taken_figure_by_figure() -> None:
    assert medians([{"a": 1.0, "b": 9.0}, {"a": 3.0, "b": 8.0}, {"a": 2.0, "b": 7.0}]) == {"a": 2, "b": 8}


def test_a_figure_keeps_three_digits_that_mean_something() -> None:
    assert [rounded(v) for v in (0, 0.012345, 9.876, 123456.7)] == [0, 0.0123, 9.88, 123457]


@pytest.mark.parametrize("kind", ["null", "synthetic"])
def test_a_model_that_costs_nothing_gives_each_text_one_direction_whatever_it_comes_with(
    kind: str, tmp_path: Path
) -> None:
    base = NullEmbedder().encode([f"sentence {n}" for n in range(50)])
    save_base(tmp_path, base, "a model")
    model, again = (NullEmbedder() if kind == "null" else SyntheticEmbedder.of_home(tmp_path) for _ in "ab")
    texts = [f"text {n}" for n in range(500)]
    rows = model.encode(texts)
    assert rows.shape == (500, 384)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.array_equal(rows, np.concatenate([again.encode([text]) for text in texts]))
    assert len(np.unique(rows, axis=0)) == 500
    assert model.encode([]).shape == (0, 384)


def test_a_synthetic_vector_lies_near_a_real_one_and_carries_its_model(tmp_path: Path) -> None:
    base = NullEmbedder().encode([f"sentence {n}" for n in range(50)])
    save_base(tmp_path, base, "a model")
    model = SyntheticEmbedder.of_home(tmp_path)
    nearest = (model.encode([f"text {n}" for n in range(500)]) @ base.T).max(axis=1)
    assert model.fingerprint == "a model"
    assert nearest.min() > 0.5
    assert nearest.max() < 0.99


def test_filters_keep_the_share_of_the_corpus_that_they_name() -> None:
    corpus = [*drafts(0, 100_000)]
    kept = {
        f.name: sum(
            d["namespace"] == f.namespace and f.memory_type in {None, d["memory_type"]} for d in corpus
        )
        for f in FILTERS
    }
    assert kept == {"all": 99_900, "50 %": 50_000, "1 %": 1000, "0.1 %": 100, "0.1 %, a namespace": 100}
    assert len({d["uid"] for d in corpus}) == len({d["content"] for d in corpus}) == 100_000


def test_queries_are_all_different_and_about_nothing_in_the_corpus() -> None:
    asked = queries(1000)
    assert len(set(asked)) == 1000
    assert not any(sentence in corpus_sentences() for sentence in asked)
    with pytest.raises(ValueError, match="only"):
        queries(1_000_000)


def test_sample_texts_are_all_different() -> None:
    assert len(set(sample_texts(2000))) == 2000


def test_the_exact_search_finds_the_nearest_over_all_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.rig.stored._PAGE", 7)
    vectors = NullEmbedder().encode([f"text {n}" for n in range(100)])
    stored = StoredVectors(
        uids=np.array([str(n) for n in range(100)]),
        namespaces=np.array(["a", "b"] * 50),
        types=np.array(["x"] * 10 + ["y"] * 90),
        vectors=vectors,
    )
    asked = NullEmbedder().encode(["one", "two", "three"])
    places = stored.chosen(namespace="b", memory_type="y")
    assert list(places) == list(range(11, 100, 2))
    right = [[str(i) for i in sorted(places, key=lambda i: -q @ vectors[i])[:10]] for q in asked]
    assert stored.nearest(asked, places, k=10) == right
    assert len(stored.nearest(asked, places[:3], k=10)[0]) == 3


def test_the_overlap_is_the_share_of_the_right_ones_that_was_found() -> None:
    assert overlap([["1", "2", "9"], []], [["1", "2"], ["3", "4"]]) == 0.5


def test_evidence_is_read_however_it_was_written() -> None:
    assert evidence_keys(["D8:6; D9:17", "D:11:26", "D30:05", "nothing"]) == {
        "D8:6",
        "D9:17",
        "D11:26",
        "D30:5",
    }


def test_locomo_is_read_without_questions_that_have_no_answer(tmp_path: Path) -> None:
    turn = {"speaker": "Ana", "dia_id": "D1:1", "text": "I bought a boat", "blip_caption": "a boat"}
    asked = [
        {"question": "What did she buy?", "evidence": ["D1:1", "D7:7"], "category": 4},
        {"question": "What did she sell?", "evidence": ["D1:1"], "category": 5},
        {"question": "When?", "evidence": ["D9:9"], "category": 2},
    ]
    conversation = {"session_1": [turn], "session_1_date_time": "1:56 pm on 8 May, 2023"}
    (tmp_path / "one.json").write_text(json.dumps({"conversation": conversation, "qa": asked}))
    found = read_question_set(tmp_path)
    [one] = found.turns.values()
    assert one.line == "Ana: I bought a boat"
    assert one.as_draft() == {
        "content": "I bought a boat [a boat]",
        "uid": "D1:1",
        "namespace": "one",
        "source": "one:session_1",
        "metadata": {"author": "Ana", "position": 0},
        "created_at": datetime(2023, 5, 8, 13, 56, tzinfo=UTC),
    }
    question = Question(
        conversation="one", text="What did she buy?", category="4", evidence=frozenset({"D1:1"})
    )
    assert found.questions == [question]
    assert found.n_dropped == 2


def test_longmemeval_is_read_with_a_conversation_for_each_question(tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": "I bought a boat", "has_answer": True},
        {"role": "assistant", "content": "Lovely!"},
    ]
    asked = {
        "question_id": "q1",
        "question_type": "single-session-user",
        "question": "What did I buy?",
        "haystack_session_ids": ["a"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [said],
    }
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([asked, {**asked, "question_id": "q2_abs"}]))
    found = read_question_set(path)
    assert list(found.turns) == [("q1", "0:0"), ("q1", "0:1")]
    assert found.turns["q1", "0:1"].session_at == datetime(2023, 5, 20, 2, 21, tzinfo=UTC)
    [question] = found.questions
    assert (question.category, question.evidence) == ("single-session-user", {"0:0"})


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", '{"conversation": {}, "qa": []}'])
def test_what_is_no_set_of_questions_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(NotPossible, match=r"one\.json|no conversation"):
        read_question_set(tmp_path)


def test_the_metrics_of_retrieval_are_the_usual_ones() -> None:
    answers = [["x"], ["a", "y"], ["b"], ["a"], *[["z"]] * 7, ["c"]]
    found = scored(answers, {"a", "b", "c", "d"})
    assert [found[f"recall@{k}"] for k in (1, 5, 10, 20)] == [0, 0.5, 0.5, 0.75]
    assert (found["any@1"], found["any@5"], found["MRR"]) == (0, 1, 0.5)
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)
    assert found["nDCG@10"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(4)) / best)
    assert set(scored([], {"a"}).values()) == {0}
    assert set(scored([["a"]], {"a"}).values()) == {1}


def test_a_fit_finds_the_terms_that_tell_the_right_answers() -> None:
    chance = np.random.default_rng(1)
    terms = [chance.random((40, 3)) for _ in range(60)]
    right = [values[:, 0] + 0.5 * values[:, 2] >= 1.2 for values in terms]
    kept = [i for i, is_right in enumerate(right) if is_right.any()]
    weights = fitted([terms[i] for i in kept], [right[i] for i in kept])
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > weights[2] > 0.2 > abs(weights[1])


def test_the_work_of_a_text_is_that_of_its_matrices() -> None:
    config = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
    assert total_flop(config, [1]) == pytest.approx(21.2e6, rel=0.01)
    assert total_flop(config, [10, 10]) == 2 * total_flop(config, [10])


def test_a_card_that_nobody_has_heard_of_has_no_known_peak() -> None:
    assert known_peak_tflops("NVIDIA H100 PCIe") == 756
    assert known_peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert known_peak_tflops("NVIDIA L40S") == 362
    assert known_peak_tflops("Voodoo 2") is None


def test_a_wait_ends_with_what_was_waited_for() -> None:
    with pytest.raises(NotInTime, match="pigs fly"):
        wait_for(lambda: False, timeout_s=0.01, what="pigs fly", pause_s=0.001)
