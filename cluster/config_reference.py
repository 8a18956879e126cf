"""The page of all settings, docs/configuration.md, made from the settings' own declarations.

`python -m easel.cluster.config_reference` prints it.
"""

import types
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from easel.cluster.config import ENVIRONMENT_PREFIX, ClusterConfig
from easel.cluster.config_sections import Section

_KINDS: Mapping[Any, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    ByteSize: "size, such as `64MiB`",
}
_HEAD = """# Configuration

Every setting of `easel serve`. This page is made from the code that reads them, by
`python -m easel.cluster.config_reference`.

Later sources win:

1. the defaults below;
2. one YAML file, `easel serve --config FILE`, whose sections are those of this page;
3. the environment: `EASEL_`, the section, two underscores, the name, all in capitals;
4. the command line: `MODEL_DIR`, `--replicas`, `--host`, `--port`, `--redis-url`. Where no source names a
   model, `easel serve` takes the embedded one.

A setting that does not exist or a value out of bounds is refused before anything is started, with the name of
its source; so is a misspelt variable that begins with `EASEL_`. In the environment, items of a list are
separated by commas. Sizes take `KiB`, `MiB` and `GiB` (powers of two) or `KB`, `MB` and `GB`.

```yaml
# easel.yaml
model: /models/SDAR-8B-Chat
replicas: 4
gateways: 2
engine:
  device: cuda
  slots: 128
journal:
  redis_url: rediss://easel:PASSWORD@redis.internal:6380/0
  tls_ca: /etc/easel/redis-ca.pem
tenants:
  - name: acme
    key_hashes: [9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08]  # of the key "test"
    max_canvases: 16
```

```sh
EASEL_ENGINE__SLOTS=64 easel serve --config easel.yaml --port 8080    # 64 slots, port 8080
```
"""


def configuration_page() -> str:
    """docs/configuration.md, as Markdown."""
    return "\n".join([_HEAD, *_sections(ClusterConfig, ())])


def variable_of(path: tuple[str, ...]) -> str:
    """The environment variable that overrides the setting at `path`."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


def describe_type(annotation: Any) -> str:
    """A type as a reader of the page knows it; that it may be None the default tells."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(one) for one in inner if one is not types.NoneType)
    if origin is tuple:
        return "list of sections" if _is_section(inner[0]) else f"list of {describe_type(inner[0])}"
    return _KINDS[annotation]


def describe_bounds(field: FieldInfo) -> str:
    """What a value has to keep to, in words; empty where anything of its type will do."""
    return ", ".join(words for one in field.metadata if (words := _bound(one)))


def _bound(constraint: object) -> str:
    match constraint:
        case Ge():
            return f"at least {constraint.ge}"
        case Gt():
            return f"above {constraint.gt}"
        case Le():
            return f"at most {constraint.le}"
        case MinLen():
            return "not empty"
        case _:
            return ""


def _sections(section: type[Section], above: tuple[str, ...], *, listed: bool = False) -> Iterator[str]:
    """The section's table; then, each with its heading, those of the sections in it."""
    inner: list[tuple[tuple[str, ...], type[Section], bool]] = []
    rows: list[str] = []
    for name, field in section.model_fields.items():
        path, of_a_list = (*above, name), _listed(field.annotation)
        if _is_section(field.annotation):
            inner.append((path, field.annotation, listed))
            continue
        if of_a_list is not None:
            inner.append((path, of_a_list, True))
        only_in_file = listed or of_a_list is not None
        rows.append(_row(path, field, "" if only_in_file else f"<br>`{variable_of(path)}`"))
    yield from _table(section, above, rows)
    for path, one, in_list in inner:
        yield from _sections(one, path, listed=in_list)


def _table(section: type[Section], path: tuple[str, ...], rows: list[str]) -> Iterator[str]:
    yield f"## {_heading(path)}\n\n{cleandoc(section.__doc__ or '')}\n"
    yield "| setting | takes | default | meaning |"
    yield "|---|---|---|---|"
    yield from rows
    yield ""


def _row(path: tuple[str, ...], field: FieldInfo, variable: str) -> str:
    """`variable` follows the name."""
    takes = "; ".join(part for part in (describe_type(field.annotation), describe_bounds(field)) if part)
    cells = (f"`{'.'.join(path)}`{variable}", takes, _default(field), field.description or "")
    return f"| {' | '.join(cells)} |"


def _default(field: FieldInfo) -> str:
    """As it would stand in the file."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable(separator='').replace('.0', '')}`"
    return f"`{value}`" if value != "" else "empty"


def _listed(annotation: Any) -> type[Section] | None:
    """The section of which a setting is a list."""
    inner = get_args(annotation)
    return inner[0] if get_origin(annotation) is tuple and _is_section(inner[0]) else None


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _heading(path: tuple[str, ...]) -> str:
    return f"`{'.'.join(path)}`" if path else "At the top"


if __name__ == "__main__":
    print(configuration_page(), end="")
