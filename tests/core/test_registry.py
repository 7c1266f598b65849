from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import fedexp
from fedexp import attacks, datasets, metrics, models, partitions, strategies
from fedexp.core.options import FedexpError, ranged
from fedexp.core.registry import PluginError, Registry, file_of, located
from fedexp.strategies import Strategy


@dataclass(frozen=True)
class Dish:
    name: str = ""
    salt: float = ranged(1.0, ge=0)


class Spice:
    name: ClassVar[str] = ""


@pytest.fixture
def dishes() -> Registry[Dish]:
    return Registry("dish", Dish)


@pytest.fixture
def module_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dishes: Registry[Dish]
) -> Callable[[str, str], ModuleType]:
    """Return a function that runs a file's text in which the registry is called ``dishes``."""

    # Of two texts of one length in one second, Python would run the first one twice.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(name: str, text: str) -> ModuleType:
        path = tmp_path / f"{name}.py"
        head = "from dataclasses import dataclass\n"
        path.write_text(head + text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        module.dishes, module.Dish = dishes, Dish  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return run


SOUP = """
@dishes.register
@dataclass(frozen=True)
class Soup(Dish):
    name: str = "soup"
    water: int = {water}
"""


def test_what_is_registered_can_be_had_by_its_name(dishes: Registry[Dish]) -> None:
    @dishes.register
    @dataclass(frozen=True)
    class Stew(Dish):
        name: str = "stew"

    @dishes.register
    @dataclass(frozen=True)
    class Bread(Dish):
        name: str = "bread_2"

    assert dishes.choices() == ["bread_2", "stew"]
    assert dishes.get("stew") is Stew
    assert dishes.pages() == {"bread_2": Bread, "stew": Stew}
    assert dishes.outside() == [Bread, Stew]
    assert Stew() == Stew(name="stew", salt=1.0), "the class itself comes back"
    dishes.forget("stew")
    assert dishes.choices() == ["bread_2"]
    with pytest.raises(FedexpError, match="dish must be one of bread_2, got 'stew'"):
        dishes.get("stew")


def test_a_class_without_options_need_not_be_a_dataclass() -> None:
    spices: Registry[Spice] = Registry("spice", Spice)

    @spices.register
    class Pepper(Spice):
        name = "pepper"

    assert spices.pages() == {"pepper": Pepper}


def test_a_name_has_one_owner(
    dishes: Registry[Dish], module_of: Callable[[str, str], ModuleType], tmp_path: Path
) -> None:
    first = module_of("kitchen", SOUP.format(water=1))
    with pytest.raises(PluginError) as caught:
        module_of("canteen", SOUP.format(water=2))
    assert str(caught.value) == (
        f"dish=soup has two owners, {tmp_path / 'kitchen.py'} and {tmp_path / 'canteen.py'}: "
        "rename one of them"
    )
    assert dishes.get("soup") is first.Soup
    with pytest.raises(PluginError, match="two owners"):
        module_of("kitchen", SOUP.format(water=1).replace("Soup", "Broth"))


def test_what_fedexp_has_cannot_be_taken() -> None:
    before = strategies.get("fedavg")
    with pytest.raises(PluginError) as caught:

        @strategies.register
        @dataclass(frozen=True)
        class Mine(Strategy):
            name: str = "fedavg"

    assert str(Path(fedexp.__file__).parent / "strategies" / "fedavg.py") in str(caught.value)
    assert __file__ in str(caught.value)
    assert strategies.get("fedavg") is before


def test_a_cell_that_is_run_again_defines_it_again(
    dishes: Registry[Dish], module_of: Callable[[str, str], ModuleType]
) -> None:
    for water in (1, 2):
        again = module_of("kitchen", SOUP.format(water=water))
        assert dishes.get("soup") is again.Soup
        assert dishes.get("soup")().water == water  # type: ignore[attr-defined]
    assert dishes.choices() == ["soup"]


def _not_a_page() -> Any:
    @dataclass(frozen=True)
    class Chair:
        name: str = "chair"

    return Chair


def _no_dataclass() -> Any:
    class Bare(Dish):
        name: str = "bare"

    return Bare


def _no_dataclass_below_one() -> Any:
    @dataclass(frozen=True)
    class Parent(Dish):
        name: str = "parent"

    class Child(Parent):
        name: str = "child"

    return Child


def _no_default() -> Any:
    @dataclass(frozen=True, kw_only=True)
    class Unsure(Dish):
        name: str = "unsure"
        amount: int

    return Unsure


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (_not_a_page(), "Chair must inherit from Dish"),
        (
            _no_dataclass(),
            "Bare must be a dataclass: write @dataclass(frozen=True) below @register",
        ),
        (_no_dataclass_below_one(), "Child must be a dataclass"),
        (_no_default(), "Unsure needs a default for its option amount"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_a_choice_is_refused(
    dishes: Registry[Dish], page: Any, problem: str
) -> None:
    with pytest.raises(PluginError) as caught:
        dishes.register(page)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(__file__), "says which file"
    assert dishes.choices() == []


def test_options_that_could_be_written_to_are_refused() -> None:
    @dataclass
    class Loose:
        name: str = ""

    loose: Registry[Any] = Registry("loose", Loose)

    @dataclass
    class Thawed(Loose):
        name: str = "thawed"

    with pytest.raises(PluginError, match=r"Thawed must be frozen: @dataclass\(frozen=True\)"):
        loose.register(Thawed)


@pytest.mark.parametrize("name", ["", "Soup", "2soups", "_soup", "fish-soup", "fish soup", None, 3])
def test_names_are_words_of_the_command_line(dishes: Registry[Dish], name: Any) -> None:
    odd: Any = type("Odd", (Dish,), {"__annotations__": {"name": "str"}, "name": name})
    page = dataclass(frozen=True)(odd)
    with pytest.raises(PluginError, match="Odd needs a name of small letters, digits and _, got"):
        dishes.register(page)
    assert dishes.choices() == []


def test_an_option_that_its_objects_do_not_have_is_refused(dishes: Registry[Dish]) -> None:
    # Without a type a dataclass does not take it for an option: objects have what the base has.
    @dataclass(frozen=True)
    class Nameless(Dish):
        name = "nameless"

    @dataclass(frozen=True)
    class Salty(Dish):
        name: str = "salty"
        salt = 9.0

    wrong: list[tuple[Any, str, object]] = [(Nameless, "name", ""), (Salty, "salt", 1.0)]
    for page, option, value in wrong:
        assert getattr(page(), option) == value
        with pytest.raises(PluginError, match=option):
            dishes.register(page)


def test_an_option_may_have_a_factory_and_a_page_may_build_on_another(
    dishes: Registry[Dish],
) -> None:
    @dishes.register
    @dataclass(frozen=True)
    class Salad(Dish):
        name: str = "salad"
        leaves: list[str] = field(default_factory=lambda: ["rocket"])

    @dishes.register
    @dataclass(frozen=True)
    class Bowl(Salad):
        name: str = "bowl"

    assert dishes.get("bowl")() == Bowl(salt=1.0, leaves=["rocket"])
    assert dishes.choices() == ["bowl", "salad"]


@pytest.fixture
def mine() -> Iterator[type[Strategy]]:
    @strategies.register
    @dataclass(frozen=True)
    class Mine(Strategy):
        name: str = "a_mine"

    yield Mine
    strategies.REGISTRY.forget("a_mine")


def test_built_in_choices_come_first(mine: type[Strategy]) -> None:
    names = strategies.choices()
    assert names[-1] == "a_mine"
    assert names[:-1] == sorted(names[:-1])
    assert strategies.REGISTRY.is_built_in("fedavg")
    assert not strategies.REGISTRY.is_built_in("a_mine")
    assert strategies.REGISTRY.outside() == [mine]


@pytest.mark.parametrize(
    ("room", "parts"),
    [
        (datasets, {"base", "corpora", "rdatasets_tables", "tables", "texts"}),
        (models, {"base", "layers", "sequences", "hugging_face", "jax_model", "keras_model"}),
        (partitions, {"base"}),
        (strategies, {"base", "losses"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_choice_is_a_file_of_its_name(room: Any, parts: set[str]) -> None:
    files = {path.stem for path in Path(room.__file__).parent.glob("*.py")} - {"__init__"}
    built_in = {name for name in room.choices() if room.REGISTRY.is_built_in(name)}
    assert files - built_in == parts
    for name in built_in:
        assert file_of(room.get(name)) == Path(room.__file__).parent / f"{name}.py"
        assert room.get(name)().name == name


def test_attacks_and_metrics_stand_in_one_file_each() -> None:
    for room, names in (
        (attacks, ["gaussian", "label_flip", "little_is_enough", "sign_flip"]),
        (
            metrics,
            [
                *["accuracy", "auroc", "balanced_accuracy", "brier", "ece", "loss", "macro_f1"],
                *["mae", "perplexity", "r2", "rmse", "top5"],
            ],
        ),
    ):
        assert room.choices() == names
        assert {str(file_of(room.get(name))) for name in names} == {room.__file__}


def test_an_error_is_told_with_its_place(
    module_of: Callable[[str, str], ModuleType], tmp_path: Path
) -> None:
    module = module_of(
        "kitchen",
        SOUP.format(water=1)
        + """
    def cook(self):
        raise ValueError("too hot:\\nsee below")

    def stir(self):
        return int("spoon")

    def burn(self, error):
        raise error
""",
    )
    soup, path = module.Soup(), tmp_path / "kitchen.py"

    def told(call: Callable[[], object], page: type = module.Soup) -> str:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call()
        return located(page, caught.value)

    assert told(soup.cook) == f"ValueError: too hot: ({path}:10)"
    # The page's own line, not that of what it called.
    assert told(soup.stir).endswith(f"with base 10: 'spoon' ({path}:13)")
    assert told(lambda: soup.burn(FedexpError("no gas"))) == f"no gas ({path}:16)"
    assert told(lambda: soup.burn(KeyError())).endswith(f"KeyError ({path}:16)")
    # Raised elsewhere: there is no line of the page to blame.
    assert told(lambda: int("fork")).startswith("ValueError: invalid literal")
    assert str(path) not in told(lambda: int("fork"))


def test_a_page_that_was_typed_in_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    page = type("Typed", (Dish,), {"__module__": "nowhere"})
    assert file_of(page) is None
    assert located(page, ValueError("why")) == "ValueError: why"
    monkeypatch.setitem(sys.modules, "nowhere", ModuleType("nowhere"))
    assert file_of(page) is None


def test_its_error_is_one_that_users_are_told() -> None:
    assert issubclass(PluginError, FedexpError)
