"""The embedding on a CUDA device: texts a second, and the share of the card's peak that this is.

What runs is the product's embed path as a worker loads it with USE_GPU=true: its batches, its engine, its
precision. The baseline, in turn with it, is `SentenceTransformer.encode` on the same device, batches of 32,
float32. The work of a text is that of its own word pieces; padding is not counted. Set EMBEDDING_PRECISION
and the like to measure others. Exits with 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rig.command import NotPossible, Report, command, execute, positive
from benchmarks.rig.figures import medians, timed
from benchmarks.rig.texts import sample_texts
from benchmarks.rig.waiting import say
from memory.embedding import locate
from memory.settings import Settings, read_settings
from workers.app import load_model

_PEAK_TFLOPS = {  # dense, of the 16-bit formats, by a part of the device's name; the first that fits
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "V100": 125,
    "T4": 65,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
_BATCH = 32


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--texts", type=positive, default=50_000, help="of one round")
    parser.add_argument(
        "--peak-tflops", type=float, help="of the card in 16 bits, where it is not known here"
    )
    arguments = parser.parse_args()
    execute("gpu", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    import torch  # noqa: PLC0415 (seconds of import)

    if not torch.cuda.is_available():
        raise NotPossible("there is no CUDA device here (torch finds none), so nothing was measured")
    device = torch.cuda.get_device_name(0)
    peak = arguments.peak_tflops or known_peak_tflops(device)
    report.figures |= {"device": device, "CUDA": torch.version.cuda, "peak, TFLOP/s": peak or "unknown"}
    settings = read_settings(use_gpu=True)
    measure_on(report, settings, sample_texts(arguments.texts), device="cuda", rounds=arguments.rounds)
    if peak:
        reached = report.figures["TFLOP/s"]
        report.figures["share of the peak, %"] = round(100 * reached / peak, 2)
    report.figures["memory of the card used at most, MiB"] = torch.cuda.max_memory_allocated() >> 20


def measure_on(report: Report, settings: Settings, texts: Sequence[str], *, device: str, rounds: int) -> None:
    """Measure the product's model with these settings and the baseline on `device`, in turn."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 (seconds of import)

    place = Path(locate(settings.embedding_model))
    model = load_model(settings)
    bare = SentenceTransformer(str(place), device=device)
    lengths = [len(ids) for ids in bare.tokenizer(list(texts), truncation=True, max_length=256)["input_ids"]]
    work = total_flop(json.loads((place / "config.json").read_text()), lengths)
    warm = texts[: 20 * _BATCH]
    model.encode(warm)
    _bare(bare, warm)
    measured = []
    for number in range(rounds):
        ours_s, vectors = timed(lambda: model.encode(texts))
        bare_s, exact = timed(lambda: _bare(bare, texts))
        measured.append(
            {
                "texts/s": len(texts) / ours_s,
                "TFLOP/s": work / ours_s / 1e12,
                "baseline, texts/s": len(texts) / bare_s,
                "÷ baseline": bare_s / ours_s,
            }
        )
        say(f"round {number + 1}: {len(texts) / ours_s:.0f} texts/s")
    cosines = (vectors * exact).sum(axis=1)
    report.figures |= {
        "model": model.fingerprint,
        "texts": len(texts),
        "word pieces of a text": round(sum(lengths) / len(lengths), 1),
        **medians(measured),
        "cosine with the baseline's vectors, mean": round(float(cosines.mean()), 6),
        "cosine with the baseline's vectors, least": round(float(cosines.min()), 6),
    }


def total_flop(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Return the multiplications and additions of a BERT encoder for texts of so many word pieces.

    For each layer and piece: 8 d² for queries, keys, values and output, 4 d f for the two feed-forward
    matrices, and 4 n d for the attention over the n pieces of its text.
    """
    d, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return float(layers * sum(n * (8 * d * d + 4 * d * f + 4 * n * d) for n in lengths))


def known_peak_tflops(device: str) -> float | None:
    """Return the peak of a card by its name, in TFLOP/s of a dense 16-bit product; `None` if not known."""
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in device), None)


def _bare(model: Any, texts: Sequence[str]) -> Any:
    return model.encode(list(texts), batch_size=_BATCH, show_progress_bar=False, normalize_embeddings=True)


if __name__ == "__main__":
    main()
