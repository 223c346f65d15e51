"""YAML as DVC reads it (version 1.2), and stricter: nothing that a reader would overlook passes in silence."""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

LARGEST = 100_000  # values, with every alias written out: a file that explodes into more is no parameters file
_BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))


class Reader(yaml.SafeLoader):
    """PyYAML with YAML 1.2's booleans and numbers: a bare `no` is text, 1e-4 is a number, 010 is ten.

    A name that is given twice, a name that is no text, an alias of what it stands in, and a file that aliases make
    larger than `LARGEST` values are errors (`yaml.YAMLError`).
    """

    def __init__(self, stream):
        super().__init__(stream)
        self._open: list[str] = []  # the anchors whose values are being read
        self._sizes: dict[str, int] = {}  # of each anchor's value
        self._count = 0

    def compose_node(self, parent, index):
        """Count what is read, aliases as often as they occur."""
        event: Any = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            if event.anchor in self._open:
                raise ConstructorError(None, None, f"*{event.anchor} stands inside of itself", event.start_mark)
            self._count += self._sizes.get(event.anchor, 0)
            self._check_size(event)
            return super().compose_node(parent, index)
        start, self._count = self._count, self._count + 1
        self._check_size(event)
        if event.anchor is None:
            return super().compose_node(parent, index)
        self._open.append(event.anchor)
        node = super().compose_node(parent, index)
        self._sizes[self._open.pop()] = self._count - start
        return node

    def construct_mapping(self, node, deep=False):
        """A mapping of texts, none twice."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            merge = key.tag == "tag:yaml.org,2002:merge"  # `<<`, which may stand beside the names that it brings
            name = key.value if merge else self.construct_object(key, deep=True)
            if not merge and not isinstance(name, str):
                raise ConstructorError(None, None, f"the name {name!r} is no text: put it in quotes", key.start_mark)
            if name in seen:
                raise ConstructorError(None, None, f"{name!r} is given twice: remove one of the two", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node) -> int:
        """010 is ten, 0o10 is eight, 1_000 a thousand."""
        text = self.construct_scalar(node).replace("_", "").lower()
        return int(text, 10 if re.fullmatch(r"[-+]?[0-9]+", text) else 0)

    def refuse(self, node) -> None:
        """What no knob can be."""
        raise ConstructorError(None, None, f"{node.tag} is no value that a knob can have", node.start_mark)

    def _check_size(self, event):
        if self._count > LARGEST:
            raise ConstructorError(None, None, f"its aliases stand for more than {LARGEST} values", event.start_mark)


Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _INT, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Reader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
Reader.add_implicit_resolver(
    _INT,
    re.compile(r"^[-+]?(?:0b[01_]*[01]|0o[0-7_]*[0-7]|0x[0-9a-fA-F_]*[0-9a-fA-F]|[0-9](?:[0-9_]*[0-9])?)$"),
    list("-+0123456789"),
)
Reader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
Reader.add_constructor(_INT, Reader.construct_integer)
for _kind in ("set", "omap", "pairs", "binary"):  # DVC fails on them
    Reader.add_constructor(f"tag:yaml.org,2002:{_kind}", Reader.refuse)


def parse(text: str) -> Any:
    """The value of one YAML document. Raises `ValueError` in one line that says where and what."""
    try:
        return yaml.load(text, Reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{where}{' '.join(said.split())}") from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a date that is none
        raise ValueError(f"a value cannot be read ({error}): put it in quotes") from None
