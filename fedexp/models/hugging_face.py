"""Networks of Hugging Face Transformers, built from a folder; torch is imported when one is built.

Nothing is downloaded, no code that lies in a folder is run, and no pickle is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedexp.core.options import FedexpError
from fedexp.data.examples import Spec
from fedexp.models.sequences import predicts_everywhere

if TYPE_CHECKING:
    from torch import Tensor, nn

NO_PADDING = -1
"""In place of the token that pads, where there is none: no token is equal to it."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv 2106.09685).

    Attributes:
        rank: Columns of the one factor and rows of the other, >= 1.
        alpha: The adapters' product is multiplied by ``alpha / rank``.
        dropout: Share of the adapters' inputs that a training step sets to 0.
        targets: Names of the layers that get one; none stands for those that peft has for the
            architecture.
    """

    rank: int
    alpha: float
    dropout: float
    targets: Sequence[str]


def from_folder(path: str, spec: Spec, lora: Lora | None) -> nn.Module:
    """Return a folder's network with a head for the task, from tokens to logits or values.

    What the folder lacks, mostly the head, is drawn from torch's global generator. With ``lora``, only
    that and the adapters require gradients.

    Args:
        path: What ``save_pretrained`` wrote.
        spec: Tokens, and numbers in a prediction.
        lora: The adapters; None trains all parameters.

    Raises:
        FedexpError: If a language model looks at tokens that it is to predict.
    """
    import torch
    import transformers

    everywhere = predicts_everywhere(spec)
    with _quiet():
        network, report = _kind(everywhere).from_pretrained(
            path,
            output_loading_info=True,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            config=_config(transformers, path, spec, everywhere=everywhere),
        )
        new = sorted({name.rpartition(".")[0] for name in report["missing_keys"]})
        wrapped = _wrapped(network, spec, lora, new, everywhere=everywhere)
    if everywhere:
        _require_causal(wrapped, path)
    return wrapped


def try_out(path: str, spec: Spec, lora: Lora | None) -> None:
    """Build the network without numbers, which takes neither time nor memory.

    Raises:
        FedexpError: If it cannot be built, with what Transformers or peft says.
    """
    import torch
    import transformers

    everywhere = predicts_everywhere(spec)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            config = _config(transformers, path, spec, everywhere=everywhere)
            _wrapped(_kind(everywhere).from_config(config), spec, lora, [], everywhere=everywhere)
    except Exception as error:  # whatever it raises is about the folder or the options
        reason = " ".join(str(error).split()) or type(error).__name__
        targets = f", model.lora_targets=[{','.join(lora.targets)}]" if lora is not None else ""
        raise FedexpError(f"model.path={path}{targets}: {reason}") from error


def _kind(everywhere: bool) -> Any:
    import transformers

    if everywhere:
        return transformers.AutoModelForCausalLM
    return transformers.AutoModelForSequenceClassification


def _config(transformers: Any, path: str, spec: Spec, *, everywhere: bool) -> Any:
    more = {} if everywhere else {"num_labels": spec.outputs}
    return transformers.AutoConfig.from_pretrained(
        path, local_files_only=True, trust_remote_code=False, **more
    )


def _wrapped(
    network: Any, spec: Spec, lora: Lora | None, new: list[str], *, everywhere: bool
) -> nn.Module:
    """Return what goes from tokens to outputs.

    Args:
        network: As Transformers makes it.
        spec: Tokens, and numbers in a prediction.
        lora: The adapters.
        new: Layers that the folder lacks; they are random, so that they must be trained and sent.
        everywhere: Whether the next token is predicted.
    """
    from torch import nn

    # After the network was built: an embedding treats the number differently. Heads that look at the last
    # token of a text find its end by it; a language model would ask for a mask, which it does not need.
    network.config.pad_token_id = NO_PADDING if everywhere else spec.padding
    if lora is not None:
        network = _adapted(network, lora, new, everywhere=everywhere)

    class Wrapped(nn.Module):
        """From tokens, int64, shape (n, T), to outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: Tensor) -> Tensor:
            if everywhere:  # texts end with their padding, which nothing before it looks at
                found: Tensor = self.network(input_ids=tokens, use_cache=False).logits
                return found[..., : spec.outputs]
            if spec.padding == NO_PADDING:
                answer: Tensor = self.network(input_ids=tokens).logits
                return answer
            mask = tokens != spec.padding
            mask[:, 0] = True  # a text of no tokens still has a place to look at
            longest = 1 + int(mask.any(0).nonzero().max())
            answer = self.network(
                input_ids=tokens[:, :longest], attention_mask=mask[:, :longest].long()
            ).logits
            return answer

    return Wrapped()


def _adapted(network: Any, lora: Lora, new: list[str], *, everywhere: bool) -> Any:
    import peft

    adapters = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or None,
        modules_to_save=new or None,
        task_type=peft.TaskType.CAUSAL_LM if everywhere else peft.TaskType.SEQ_CLS,
    )
    return peft.get_peft_model(network, adapters)


def _require_causal(wrapped: nn.Module, path: str) -> None:
    """Compare what is said of a place before and after the next token was changed."""
    import torch

    wrapped.eval()
    with torch.no_grad():
        first = wrapped(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]]))[:, :3]
    wrapped.train()
    if not torch.allclose(first[0], first[1], atol=1e-4):
        raise FedexpError(
            f"model.path={path} holds a network that looks at the tokens it is to predict: for dataset "
            "tasks of next_token take a causal language model, such as GPT-2"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep bars, reports on new heads and warnings about versions to come off the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
