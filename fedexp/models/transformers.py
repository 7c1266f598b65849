"""A network of Hugging Face Transformers, all of it or by adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.core.options import FedexpError, Plan, ranged
from fedexp.data.examples import Spec
from fedexp.data.tokenizers import tokenizer_sha256
from fedexp.models.base import TOKENS, Model, register

if TYPE_CHECKING:
    from torch import nn

    from fedexp.models.hugging_face import Lora

CONFIG, INDEX = "config.json", "model.safetensors.index.json"

OFFSET = ("camembert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta")
"""Architectures that count places from behind the number of the padding token."""


@register
@dataclass(frozen=True)
class Transformers(Model):
    """A pre-trained network of Hugging Face Transformers, from a folder on this disk.

    A text's label or value is told by a new head (``AutoModelForSequenceClassification``), the next token
    by a causal language model (``AutoModelForCausalLM``). With ``lora_rank``, adapters (LoRA, Hu et al.,
    arXiv 2106.09685, by the package peft) and a new head are trained, sent and saved, and nothing else:
    everybody reads the rest from the folder. Nothing is downloaded, no code in the folder is run, and of
    weights only safetensors are read. Needs the extra ``transformers``.
    """

    kinds = (TOKENS,)
    tasks = ("classification", "next_token", "regression")
    keeps_frozen = True
    tested_at_once = 32
    packages = ("transformers", "tokenizers", "peft")
    extra = "transformers"
    folders = ("path",)

    name: str = "transformers"
    path: str = ""
    """Folder that ``save_pretrained`` wrote: config.json and model.safetensors. Every machine that
    clients run on must have it."""
    lora_rank: int = ranged(0, ge=0)
    """Rank of the adapters; 0 trains all parameters and has none."""
    lora_alpha: float = ranged(16.0, gt=0)
    """What the adapters add is multiplied by lora_alpha / lora_rank."""
    lora_dropout: float = ranged(0.0, ge=0, lt=1)
    """Share of the adapters' inputs that a training step sets to 0."""
    lora_targets: list[str] = field(default_factory=list)
    """Names of the layers that get adapters, such as query; empty stands for those that peft has for the
    architecture, mostly queries and values of the attention."""

    def errors(self, plan: Plan) -> Iterable[str]:
        """The folder must hold a network that goes with the tokens."""
        try:
            config = self._config()
        except FedexpError as error:
            yield str(error)
            return
        if plan.dataset.kind in self.kinds and self.takes(plan.dataset.kind, plan.dataset.task):
            yield from self._token_errors(plan.dataset, config)

    def _token_errors(self, dataset: Any, config: dict[str, Any]) -> Iterable[str]:
        spec, own = dataset.spec, tokenizer_sha256(self.path)
        if own and (not dataset.tokenized_by or tokenizer_sha256(dataset.tokenized_by) != own):
            yield (
                f"model.path={self.path} was trained on the tokens of its own tokenizer, dataset="
                f"{dataset.name} {_told(dataset)}: a dataset of texts takes dataset.tokenizer={self.path}"
            )
            return
        size = config.get("vocab_size")
        if isinstance(size, int) and spec.vocabulary > size:
            yield (
                f"model.path={self.path} knows {size} tokens, dataset={dataset.name} has "
                f"{spec.vocabulary}: choose another folder or dataset"
            )
        longest = config.get("max_position_embeddings", config.get("n_positions"))
        if isinstance(longest, int) and config.get("model_type") in OFFSET:
            longest -= 1 + int(config.get("pad_token_id") or 0)
        if isinstance(longest, int) and spec.shape[0] > longest:
            yield (
                f"model.path={self.path} takes at most {longest} tokens, the texts of dataset="
                f"{dataset.name} have {spec.shape[0]}: cut them, with dataset.length where there is one"
            )
        kinds = [str(kind) for kind in config.get("architectures") or []]
        causal = any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds)
        if dataset.task == "next_token" and not causal:
            yield (
                f"model.path={self.path} holds no language model (its {CONFIG} says "
                f"{', '.join(kinds) or 'nothing'}), which the prediction of the next token needs; "
                "take a causal one, such as GPT-2"
            )

    def ensure(self, spec: Spec) -> None:
        """Build the network without numbers."""
        from fedexp.models.hugging_face import try_out

        try_out(self.path, spec, self._lora)

    def files_sha256(self) -> str | None:
        """Hash config.json and the weights."""
        digest = hashlib.sha256()
        for path in sorted([Path(self.path, CONFIG), *Path(self.path).glob("*.safetensors*")]):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def build(self, spec: Spec) -> nn.Module:
        """Read the folder, and add head and adapters."""
        from fedexp.models.hugging_face import from_folder

        self._config()  # the machine that clients run on may not have it
        return from_folder(self.path, spec, self._lora)

    @property
    def _lora(self) -> Lora | None:
        from fedexp.models.hugging_face import Lora

        if not self.lora_rank:
            return None
        return Lora(self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets)

    def _config(self) -> dict[str, Any]:
        """Return what config.json says.

        Raises:
            FedexpError: If the folder is none that ``save_pretrained`` wrote.
        """
        folder, wrote = Path(self.path), "as save_pretrained writes it"
        if not self.path or not folder.is_dir():
            seen = "" if not self.path or folder.is_absolute() else f" seen from {Path.cwd()}"
            raise FedexpError(
                f"model.path must be a folder with {CONFIG} and model.safetensors, {wrote}, got "
                f"{self.path!r}{seen}; nothing is downloaded: 'hf download NAME --local-dir FOLDER' "
                "does that"
            )
        try:
            config = json.loads((folder / CONFIG).read_bytes())
        except (OSError, ValueError) as error:
            raise FedexpError(
                f"model.path={self.path}: {CONFIG} is damaged or absent "
                f"({' '.join(str(error).split())}); it must be {wrote}"
            ) from error
        if not isinstance(config, dict):
            raise FedexpError(f"model.path={self.path}: {CONFIG} must hold a mapping, {wrote}")
        if not any((folder / name).is_file() for name in ("model.safetensors", INDEX)):
            raise FedexpError(
                f"model.path={self.path} holds no model.safetensors; other files of weights are not "
                "read, because they can hold code: load it in Transformers once and call save_pretrained"
            )
        return config


def _told(dataset: Any) -> str:
    by = dataset.tokenized_by
    return f"has those of {by}" if by else "has tokens of its own"
