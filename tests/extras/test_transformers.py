"""The extra transformers: tiny random networks made on the spot, nothing is downloaded."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
import transformers
from safetensors.numpy import load_file, save_file
from support.documents import ROOT, files_in
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F

from fedexp.config.composition import compose_config
from fedexp.config.training import TrainingConfig
from fedexp.core.options import ConfigError, FedexpError
from fedexp.core.weights import Weights, hash_weights
from fedexp.data import loading, tokenizers
from fedexp.datasets import Dataset
from fedexp.datasets.texts import TextDataset, Texts
from fedexp.datasets.toy_text import ToyText
from fedexp.models.transformers import Transformers
from fedexp.partitions.iid import Iid
from fedexp.strategies.fedper import FedPer
from fedexp.strategies.local_only import LocalOnly
from fedexp.testing import conforms
from fedexp.testing.runs import run, same_everywhere, small
from fedexp.testing.tiny import TinyText, TinyWords
from fedexp.tracking.identity import differences, identity
from fedexp.training.network import Network, build_network

EVERYWHERE = ("inline", "ray", "flower")
DOCUMENT = ROOT / "docs" / "transformers.md"
CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"a b c d e f g h".split()]
POSTS = ["a b c", "A b!", "d d d d d d d d d d", "", "e f nobody-knows"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    made = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    return _saved(transformers.BertModel(made), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    made = transformers.GPT2Config(vocab_size=40, n_positions=48, n_embd=16, n_layer=2, n_head=2)
    return _saved(transformers.GPT2LMHeadModel(made), tmp_path_factory.mktemp("gpt"))


def _saved(network: Any, folder: Path) -> str:
    network.save_pretrained(folder)
    return str(folder)


def _with_tokenizer(folder: Path) -> str:
    """Write a tokenizer of a few words, [CLS] before a text and [SEP] behind it."""
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "_loaded", loading._loaded.__class__())


@dataclass(frozen=True)
class Posts(TextDataset):
    """A few texts of two labels."""

    name: str = "posts"

    def read(self) -> tuple[Texts, Texts]:
        labels = np.array([0, 1, 0, 1, 1], dtype=np.int64)
        return Texts(POSTS * 4, np.tile(labels, 4)), Texts(POSTS, labels)


def _network(model: Transformers, dataset: Dataset, seed: int = 0) -> Network:
    return build_network(model, dataset.spec, seed, CPU, dataset.prepare)


def _trained(**changes: Any) -> Weights:
    ending, _ = run(small(**changes))
    assert ending.weights is not None
    return ending.weights


def _errors(model: Transformers, dataset: Dataset) -> list[str]:
    return list(model.errors(small(model=model, dataset=dataset)))


def test_it_conforms_in_every_task(gpt: str) -> None:
    """The same bits twice and when resumed, for labels, values and the next token."""
    conforms(Transformers(path=gpt), ["inline"])
    conforms(Transformers(path=gpt, lora_rank=2, lora_dropout=0.2), ["inline"])


def test_encoders_give_the_same_bits_everywhere(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    model = Transformers(path=bert, lora_rank=2)
    assert transformers.AutoConfig.from_pretrained(bert).hidden_dropout_prob > 0
    same_everywhere(small(model=model, dataset=TinyWords()), EVERYWHERE)


@pytest.mark.parametrize("dataset", [TinyWords(), TinyText()], ids=["words", "text"])
def test_adapters_and_head_are_all_that_is_sent(gpt: str, dataset: Dataset, tmp_path: Path) -> None:
    network = _network(Transformers(path=gpt, lora_rank=2), dataset)
    weights = network.weights()
    # Two blocks with adapters of rank 2 at the layer from 16 numbers to 48; 10 labels from 16 numbers.
    head = 10 * 16 if dataset.task == "classification" else 0
    assert sum(a.size for a in weights.values()) == 2 * (2 * 16 + 48 * 2) + head
    assert weights.keys() == network.parameters.keys()
    assert {n for n in weights if "lora" not in n} == {n for n in weights if "score" in n}
    ending, told = run(small(model=Transformers(path=gpt, lora_rank=2), dataset=dataset))
    nbytes = sum(array.nbytes for array in weights.values())
    sent = [row for row in told.measurements if row.metric == "bytes_up"]
    assert [row.value for row in sent] == [3 * nbytes, 3 * nbytes]
    assert ending.weights is not None
    assert ending.weights.keys() == weights.keys()


def test_all_parameters_are_sent_once_without_adapters(gpt: str) -> None:
    weights = _network(Transformers(path=gpt), TinyText()).weights()
    plain = transformers.AutoModelForCausalLM.from_pretrained(gpt)
    assert plain.lm_head.weight is plain.transformer.wte.weight  # tied: two names, one tensor
    assert sum(a.size for a in weights.values()) == sum(p.numel() for p in plain.parameters())


def test_what_the_folder_lacks_is_trained_and_sent(bert: str, tmp_path: Path) -> None:
    """A language model's checkpoint has no pooler: a random one that stays at home would be lost."""
    torch.manual_seed(2)
    made = transformers.AutoConfig.from_pretrained(bert)
    folder = _saved(transformers.BertForMaskedLM(made), tmp_path)
    weights = _network(Transformers(path=folder, lora_rank=2), TinyWords()).weights()
    further = {name for name in weights if "lora" not in name and "classifier" not in name}
    assert {name.rpartition(".")[2] for name in further} == {"weight", "bias"}
    assert all("bert.pooler.dense.modules_to_save" in name for name in further)


def test_nobody_moves_what_is_frozen(bert: str) -> None:
    dataset, model = TinyWords(), Transformers(path=bert, lora_rank=2)
    weights = _trained(model=model, dataset=dataset)
    start = _network(model, dataset).weights()
    moved = {n for n, array in weights.items() if not np.array_equal(array, start[n])}
    assert moved == set(start)
    kept = transformers.AutoModel.from_pretrained(bert).state_dict()
    held = _network(model, dataset).module.state_dict()
    prefix = "network.base_model.model.bert."
    names = [n for n in kept if prefix + n in held]
    assert len(names) > 30
    assert all(torch.equal(kept[n], held[prefix + n]) for n in names)


def test_a_step_is_that_of_plain_pytorch(bert: str, tmp_path: Path) -> None:
    """One client, one step of SGD on all its examples: fedexp against Transformers alone."""
    config = transformers.AutoConfig.from_pretrained(
        bert, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(0)
    plain = transformers.BertForSequenceClassification.from_pretrained(bert, config=config)
    folder = _saved(plain, tmp_path)
    training = TrainingConfig(
        local_steps=1, batch_size=400, learning_rate=0.1, momentum=0.0, weight_decay=0.0
    )
    dataset = TinyWords()
    clients = replace(small().clients, num=1)
    weights = _trained(
        model=Transformers(path=folder),
        dataset=dataset,
        training=training,
        clients=clients,
        partition=Iid(),
        rounds=1,
    )
    train = dataset.load()[0]
    optimizer = torch.optim.SGD(plain.train().parameters(), lr=0.1)
    logits = plain(input_ids=torch.from_numpy(train.inputs).long()).logits
    F.cross_entropy(logits, torch.from_numpy(train.targets)).backward()
    optimizer.step()
    after = {f"network.{name}": value.numpy() for name, value in plain.state_dict().items()}
    assert weights.keys() == after.keys()
    for name, array in weights.items():
        np.testing.assert_allclose(array, after[name], atol=2e-6, err_msg=name)


def test_what_comes_out_goes_into_transformers(bert: str, tmp_path: Path) -> None:
    """As docs/transformers.md prints it: adapters and head on the folder's network."""
    dataset, model = TinyWords(), Transformers(path=bert, lora_rank=2)
    weights = _trained(model=model, dataset=dataset)
    save_file(weights, tmp_path / "model.safetensors")
    _, text = files_in(DOCUMENT)
    for printed, ours in (
        ("FOLDER", bert),
        ("num_labels=20", "num_labels=10"),
        ("r=8", "r=2"),
        ("results/RUN", str(tmp_path)),
    ):
        assert printed in text
        text = text.replace(printed, ours)
    made: dict[str, Any] = {}
    exec(compile(text, str(DOCUMENT), "exec"), made)
    network = _network(model, dataset)
    network.load(weights)
    tokens = torch.from_numpy(dataset.load()[1].inputs).long()
    with torch.no_grad():
        ours = network.module.eval()(tokens)
        theirs = made["network"].eval()(input_ids=tokens).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, _network(model, dataset).module.eval()(tokens), atol=1e-3)


def test_the_script_of_the_document_trains_a_language_model(gpt: str, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    transformers.AutoModelForCausalLM.from_pretrained(gpt).save_pretrained(folder)
    _with_tokenizer(folder)
    (tmp_path / "paragraphs.py").write_text(files_in(DOCUMENT)[0])
    (tmp_path / "texts").mkdir()
    for name in "xyz":
        (tmp_path / "texts" / f"{name}.txt").write_text("a b c d e f g h\n\n" * 20)
    words = ["dataset=paragraphs", "dataset.root=texts", "partition=iid", "model=transformers"]
    words += ["model.path=whole", "dataset.tokenizer=whole", "model.lora_rank=2", "backend=inline"]
    words += ["training.optimizer=adamw", "training.learning_rate=0.01", "rounds=2"]
    words += ["dataset.length=12", "hydra.run.dir=run"]
    done = subprocess.run(
        [sys.executable, "paragraphs.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    perplexity = [float(row["value"]) for row in rows if row["metric"] == "perplexity"]
    assert len(perplexity) >= 3
    assert perplexity[-1] < perplexity[0]


def test_a_head_that_is_the_embedding_stays_with_the_client(gpt: str) -> None:
    model, dataset = Transformers(path=gpt), ToyText()
    network = _network(model, dataset)
    assert network.layers.head == {"network.transformer.wte.weight"}
    _trained(model=model, dataset=dataset, partition=Iid(), strategy=FedPer())


def test_isolated_clients_have_adapters_of_their_own(bert: str) -> None:
    model = Transformers(path=bert, lora_rank=2)
    weights = _trained(model=model, dataset=TinyWords(), strategy=LocalOnly())
    names = _network(model, TinyWords()).weights()
    assert weights.keys() == {f"{client}/{name}" for client in range(3) for name in names}


def test_the_next_token_is_told_from_those_before(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Continued(Posts):
        task = "next_token"

        def read(self) -> tuple[Texts, Texts]:
            return Texts(["a b c"]), Texts(["a b c d e f"])

    dataset = Continued(tokenizer=_with_tokenizer(tmp_path), length=6)
    train, test = loading.load(dataset)
    assert train.inputs.tolist() == [[2, 4, 5, 6, 3, 0]]
    assert train.targets.tolist() == [[4, 5, 6, 3, -100, -100]]
    assert test.inputs.tolist() == [[2, 4, 5, 6, 7, 8]]
    assert test.targets.tolist() == [[4, 5, 6, 7, 8, 3]]
    assert dataset.spec.vocabulary == len(WORDS)


def test_padding_changes_nothing(bert: str, tmp_path: Path) -> None:
    folder = _with_tokenizer(tmp_path)
    short, long = (Posts(tokenizer=folder, length=length) for length in (12, 30))
    tokens = [torch.from_numpy(loading.load(page)[1].inputs).long() for page in (short, long)]
    network = _network(Transformers(path=bert), short).module.eval()
    with torch.no_grad():
        outputs = [network(part) for part in (*tokens, tokens[1][:2])]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert torch.allclose(outputs[0][:2], outputs[2], atol=1e-6)


def test_a_text_ends_where_its_padding_begins(gpt: str, tmp_path: Path) -> None:
    """GPT-2's classifier looks at the last token, whose place it must be told."""
    dataset = Posts(tokenizer=_with_tokenizer(tmp_path), length=20)
    tokens = torch.from_numpy(loading.load(dataset)[1].inputs).long()
    network = _network(Transformers(path=gpt), dataset).module.eval()
    with torch.no_grad():
        together = network(tokens)
        alone = [network(row[row != 0][None]) for row in tokens]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_tokens_are_the_tokenizers(tmp_path: Path) -> None:
    folder = _with_tokenizer(tmp_path)
    dataset = Posts(tokenizer=folder, length=8)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)(
        POSTS, truncation=True, max_length=8, padding="max_length"
    )["input_ids"]
    assert loading.load(dataset)[1].inputs.tolist() == theirs
    assert theirs[1] == [2, 1, 5, 1, 3, 0, 0, 0]  # small letters alone are known
    assert (dataset.spec.vocabulary, dataset.spec.padding) == (len(WORDS), 0)


def test_a_length_without_room_for_a_text_is_refused(tmp_path: Path) -> None:
    folder = _with_tokenizer(tmp_path)
    with pytest.raises(FedexpError, match=r"dataset.length must be > 2"):
        tokenizers.cut([POSTS], folder, 2)
    assert tokenizers.cut([POSTS], folder, 3)[0].shape == (5, 3)


def test_texts_are_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _with_tokenizer(tmp_path / "tokenizer")
    first = tokenizers.cut([POSTS, POSTS[:1]], folder, 8)
    (kept,) = (tmp_path / "cache" / "fedexp").glob("tokens-*.npz")
    content = kept.read_bytes()
    asked: list[str] = []
    monkeypatch.setattr(tokenizers, "_tokenizer", asked.append)
    again = tokenizers.cut([POSTS, POSTS[:1]], folder, 8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not asked
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for damage in (content[:-40], b"", b"text"):
        kept.write_bytes(damage)
        found = tokenizers.cut([POSTS, POSTS[:1]], folder, 8)
        assert all(np.array_equal(a, b) for a, b in zip(first, found, strict=True))
        assert np.array_equal(np.load(kept)["part0"], first[0])
    # Another length, other texts and another tokenizer are kept under other names.
    tokenizers.cut([POSTS, POSTS[:1]], folder, 9)
    tokenizers.cut([POSTS, POSTS[1:2]], folder, 8)
    changed = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())
    changed["model"]["vocab"]["z"] = 30
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(changed))
    tokenizers.cut([POSTS, POSTS[:1]], folder, 8)
    assert len(list(kept.parent.glob("tokens-*.npz"))) == 4
    assert tokenizers.vocabulary_of(folder).size == 31


def test_a_tokenizer_without_padding_pads_with_the_end_of_a_text(tmp_path: Path) -> None:
    folder = Path(_with_tokenizer(tmp_path))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    del told["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "eos_token": "[SEP]"}))
    assert tokenizers.vocabulary_of(str(folder)).padding == 3
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(FedexpError, match="names no token that pads: set pad_token"):
        tokenizers.vocabulary_of(str(folder))


def test_tokens_of_another_making_are_refused(bert: str, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    transformers.AutoModel.from_pretrained(bert).save_pretrained(folder)
    _with_tokenizer(folder)
    model = Transformers(path=str(folder))
    fitting = Posts(tokenizer=str(folder), length=8)
    copied = Posts(tokenizer=_with_tokenizer(tmp_path / "copy"), length=8)
    assert _errors(model, fitting) == _errors(model, copied) == []
    (line,) = _errors(model, TinyWords())
    assert "tiny_words has tokens of its own" in line
    (line,) = _errors(model, Posts(length=8))
    assert line.endswith(f"dataset.tokenizer={folder}")
    other = tmp_path / "other"
    _with_tokenizer(other)
    text = (other / "tokenizer.json").read_text().replace('"h"', '"q"')
    (other / "tokenizer.json").write_text(text)
    (line,) = _errors(model, Posts(tokenizer=str(other), length=8))
    assert f"has those of {other}" in line


def test_folders_that_do_not_fit_are_refused(bert: str, gpt: str, tmp_path: Path) -> None:
    assert "got ''" in _errors(Transformers(), TinyWords())[0]
    assert "nothing is downloaded" in _errors(Transformers(path="gpt2"), TinyWords())[0]
    with pytest.raises(FedexpError, match=r"got 'gpt2' seen from /.*; nothing is downloaded"):
        _network(Transformers(path="gpt2"), TinyWords())  # as on a machine that does not have it
    assert "config.json is damaged or absent" in _errors(Transformers(path="."), TinyWords())[0]
    (tmp_path / "config.json").write_text("[]")
    assert "must hold a mapping" in _errors(Transformers(path=str(tmp_path)), TinyWords())[0]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"code")
    assert "no model.safetensors" in _errors(Transformers(path=str(tmp_path)), TinyWords())[0]
    (line,) = _errors(Transformers(path=bert), TinyText())
    assert "holds no language model" in line
    (line,) = _errors(Transformers(path=bert), Posts(length=33, buckets=40))
    assert "at most 32 tokens" in line
    assert _errors(Transformers(path=gpt), ToyText()) == []


def test_a_language_model_that_looks_ahead_is_refused(bert: str, tmp_path: Path) -> None:
    """An encoder may call itself a language model: what it does is what counts."""
    made = transformers.AutoConfig.from_pretrained(bert, is_decoder=False)
    folder = _saved(transformers.BertLMHeadModel(made), tmp_path)
    with pytest.raises(FedexpError, match="looks at the tokens it is to predict"):
        _network(Transformers(path=folder), TinyText())


def test_layers_that_are_not_there_are_refused_before_the_start(bert: str) -> None:
    model = Transformers(path=bert, lora_rank=2, lora_targets=["nothing_of_that_name"])
    with pytest.raises(FedexpError, match="nothing_of_that_name") as caught:
        model.ensure(TinyWords().spec)
    assert len(str(caught.value).splitlines()) == 1
    Transformers(path=bert, lora_rank=2, lora_targets=["key"]).ensure(TinyWords().spec)


def test_a_run_goes_on_with_the_same_folder_only(bert: str, tmp_path: Path) -> None:
    folder = _saved(transformers.AutoModel.from_pretrained(bert), tmp_path / "own")
    config = small(model=Transformers(path=folder), dataset=TinyWords())
    before = identity(config)
    assert {"transformers", "peft", "tokenizers"} < before["packages"].keys()
    assert differences(before, config) == []
    weights = load_file(Path(folder, "model.safetensors"))
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, Path(folder, "model.safetensors"))
    (line,) = differences(before, config)
    assert "model=transformers is built from other files" in line


def test_the_same_seed_draws_the_same_head(bert: str) -> None:
    model, dataset = Transformers(path=bert, lora_rank=2), TinyWords()
    one, again, other = (hash_weights(_network(model, dataset, s).weights()) for s in (0, 0, 1))
    assert one == again != other


def test_a_preset_takes_its_folder_from_the_command_line(bert: str) -> None:
    words = ["model=transformers", f"model.path={bert}", "dataset=toy_words", "model.lora_rank=4"]
    with pytest.raises(ConfigError, match="knows 40 tokens"):  # its own are 0 to 199
        compose_config(words)
    words[2] = "dataset=toy_text"
    with pytest.raises(ConfigError, match="holds no language model"):
        compose_config(words)
