"""The documentation is true and whole: what it shows exists, and what exists it mentions.

A new command, option, variable, make target or operation fails here until it is documented. Code
is recognised as Markdown's: fenced blocks and `inline spans`. A bare inline span that starts with
``--`` is an option of Fleetgate; options of other programs are shown with their program.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import typer.main

from fleetgate import settings
from fleetgate.cli import app
from fleetgate.device import command_line
from fleetgate.domain.limits import Limits
from fleetgate.settings import Settings
from tools import coverage_page, limits_table

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(path for d in ("docs", "bench", "tests") for path in (ROOT / d).rglob("*.md")),
    }
)
BUILT_IN_OPTIONS = {"--help", "--install-completion", "--show-completion"}

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])

# --- reading Markdown -----------------------------------------------------------------------------

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: (language, code), without the indentation of a list item."""
    return [
        (language, "\n".join(line.removeprefix(indent) for line in code.splitlines()))
        for indent, language, code in FENCE.findall(text)
    ]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    return SPAN.findall(prose(text))


def shell_lines(text: str) -> list[str]:
    """Everything a page shows to be typed: lines of shell blocks, and inline spans."""
    lines = []
    for language, code in blocks(text):
        if language in {"", "sh", "bash", "shell", "console"}:
            joined = code.replace("\\\n", " ")
            lines += [re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines()]
    return lines + spans(text)


def anchors(text: str) -> set[str]:
    """The anchors GitHub gives the headings of a page."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(text)))
    return {heading.replace(" ", "-") for heading in plain}


# --- the rules ------------------------------------------------------------------------------------


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page to a file or a heading that does not exist."""
    broken = []
    for target in (first or second for first, second in LINK.findall(SPAN.sub("", prose(text)))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        wanted = bool(anchor) and file.suffix == ".md"
        if not file.exists() or (
            wanted and anchor not in anchors(file.read_text() if name else text)
        ):
            broken.append(target)
    return broken


def commands_shown(text: str) -> Iterator[tuple[str, set[str]]]:
    """Every ``fleetgate COMMAND --option ...`` of a page: the command and its options."""
    for line in shell_lines(text):
        if re.search(r"\binstall\b", line):
            continue
        for command, rest in re.findall(r"(?<![\w.-])fleetgate +([a-z][\w-]*)([^|;&)>]*)", line):
            yield f"{command} {rest}".strip(), set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest))


def unknown_commands(text: str, commands: Mapping[str, set[str]]) -> list[str]:
    """Commands and options a page shows although they do not exist."""
    unknown = []
    for shown, options in commands_shown(text):
        words = shown.split()
        command = next((each for each in (" ".join(words[:2]), words[0]) if each in commands), "")
        if not command:
            unknown.append(f"fleetgate {words[0]}")
        else:
            strange = options - commands[command] - BUILT_IN_OPTIONS
            unknown += [f"fleetgate {command} {option}" for option in sorted(strange)]
    every_option = BUILT_IN_OPTIONS.union(*commands.values())
    for span in spans(text):
        if (bare := re.match(r"--[a-z][a-z0-9-]*", span)) and bare[0] not in every_option:
            unknown.append(bare[0])
    return unknown


def undocumented(text: str, commands: Mapping[str, set[str]]) -> list[str]:
    """Commands and options that no page shows. `text` is all pages together."""
    code = "\n".join(shell_lines(text))
    missing = []
    for command, options in commands.items():
        if not re.search(rf"(?<![\w.-])fleetgate +{command}(?![\w-])", code):
            missing.append(f"fleetgate {command}")
        missing += [
            f"fleetgate {command} {option}"
            for option in sorted(options - BUILT_IN_OPTIONS)
            if not re.search(rf"(?<![\w-]){option}(?![\w-])", code)
        ]
    return missing


def unknown_targets(text: str, targets: set[str]) -> list[str]:
    shown = {
        target
        for line in shell_lines(text)
        for target in re.findall(r"(?:^|[\s;&`])make +([a-z][a-z-]*)", line)
    }
    return sorted(shown - targets)


def unparsable_blocks(text: str) -> list[str]:
    """Python, JSON and TOML blocks that are none."""
    broken = []
    for language, code in blocks(text):
        try:
            if language in {"python", "py"}:
                compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            elif language == "json":
                json.loads(code)
            elif language == "toml":
                tomllib.loads(code)
        except (SyntaxError, ValueError) as error:
            broken.append(f"{language}: {error}: {code[:60]}")
    return broken


# --- this project's pages -------------------------------------------------------------------------


def cli_commands() -> dict[str, set[str]]:
    """Command -> its long options, of the command line as it is; ``group command`` for some."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    commands = {
        name: command
        for name, command in group.commands.items()
        if name not in command_line.COMMANDS
    }
    for name, inner in group.commands.items():
        if isinstance(inner, typer.core.TyperGroup):
            del commands[name]
            commands |= {f"{name} {each}": command for each, command in inner.commands.items()}
    return {
        name: {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        }
        for name, command in commands.items()
        if not command.hidden
    } | {name: long_options(command_line.parser_of(name)) for name in command_line.COMMANDS}


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    """Those that a user types in full; argparse tells of its options only in this way."""
    return {
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }


def environment_variables() -> set[str]:
    """Every FLEETGATE_* variable: those of the settings, and those named in the source."""
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"\bFLEETGATE_[A-Z][A-Z_]*[A-Z]\b", source))
    return named | {settings.variable(field.name) for field in dataclasses.fields(Settings)}


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


ALL_TEXT = "\n\n".join(page.read_text() for page in PAGES)


@every_page
def test_relative_links_resolve(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


@every_page
def test_commands_and_options_shown_exist(page: Path) -> None:
    assert unknown_commands(page.read_text(), cli_commands()) == []


def test_every_command_and_option_is_documented() -> None:
    assert undocumented(ALL_TEXT, cli_commands()) == []


def test_every_variable_is_documented() -> None:
    named = set(re.findall(r"FLEETGATE_\w+", ALL_TEXT))
    assert environment_variables() - named == set()


@every_page
def test_make_targets_shown_exist(page: Path) -> None:
    assert unknown_targets(page.read_text(), make_targets()) == []


def test_every_make_target_is_documented() -> None:
    text = (ROOT / "docs" / "development.md").read_text()
    assert {t for t in make_targets() if f"make {t}" not in "\n".join(shell_lines(text))} == set()


@every_page
def test_code_blocks_parse(page: Path) -> None:
    assert unparsable_blocks(page.read_text()) == []


@every_page
def test_nothing_is_left_to_be_written(page: Path) -> None:
    assert re.findall(r"\b(TODO|FIXME)\b", page.read_text()) == []


def test_the_changelog_has_a_place_for_the_next_release() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_coverage_page_is_current() -> None:
    """Made of the operations' docstrings and operations/scope.py, by tools/coverage_page.py."""
    command = "run .venv/bin/python tools/coverage_page.py"
    assert coverage_page.PAGE.read_text() == coverage_page.page(), command


@pytest.mark.parametrize("service", coverage_page.models())
def test_the_coverage_page_lists_every_operation_once(service: str) -> None:
    names = coverage_page.models()[service]
    assert coverage_page.unaccounted(service, names) == []
    rows = re.findall(r"^\| (`.+?`) \|", coverage_page.section(service, names), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(names)


# --- the rules themselves -------------------------------------------------------------------------

SAMPLE_COMMANDS = {"serve": {"--data", "--http"}, "env": {"--data"}, "box open": {"--lid"}}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `b` heading, here\n```\n# not one\n```\n")
    text = (
        "# Top\n[a](there.md) [b](there.md#a-b-heading-here) [c](https://example.com/x) [d](#top)"
        " [e](gone.md) [f](there.md#not-one) [g](#nowhere) ![h](gone.png) `[i](code.md)`"
    )
    expected = ["gone.md", "there.md#not-one", "#nowhere", "gone.png"]
    page = tmp_path / "page.md"
    page.write_text(text)
    assert broken_links(page, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`fleetgate start`", ["fleetgate start"]),
        ("`fleetgate box open F --lid` `fleetgate box shut`", ["fleetgate box"]),
        ("`fleetgate box open --key`", ["fleetgate box open --key"]),
        ("`fleetgate env --http X`", ["fleetgate env --http"]),
        ("`--nonsense`", ["--nonsense"]),
        (
            "```sh\n$ .venv/bin/fleetgate serve \\\n    --data D --port 1\n```",
            ["fleetgate serve --port"],
        ),
        ('```\neval "$(fleetgate env --data D)" --other\n```', []),
        ("```sh\npip install fleetgate boto3\nfleetgate serve # fleetgate never\n```", []),
        ('```json\n{"x": "fleetgate start"}\n```', []),
        ("fleetgate starts in prose; `fleetgate.toml` and `fleetgate-data x` are files", []),
        ("`fleetgate serve [--data DIR] --help` and `--data`", []),
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str, expected: list[str]) -> None:
    assert unknown_commands(text, SAMPLE_COMMANDS) == expected


def test_an_undocumented_command_or_option_is_found() -> None:
    assert undocumented("`fleetgate serve --data D`, `fleetgate envy`", SAMPLE_COMMANDS) == [
        "fleetgate serve --http",
        "fleetgate env",
        "fleetgate box open",
        "fleetgate box open --lid",
    ]


def test_a_make_target_that_does_not_exist_is_found() -> None:
    text = "`make test`, `make nonsense`; we make things\n```sh\ncd x && make gone\n```"
    assert unknown_targets(text, {"test"}) == ["gone", "nonsense"]


def test_a_block_that_does_not_parse_is_found() -> None:
    good = "```python\nx = await f()\n```\n```json\n{}\n```\n```toml\na = 1\n```\n"
    bad = "- item:\n  ```python\n  def f(:\n  ```\n```json\n{,}\n```\n```toml\na =\n```\n"
    assert unparsable_blocks(good) == []
    assert len(unparsable_blocks(bad)) == 3


def test_every_limit_is_documented() -> None:
    """Made of the text beside each limit, by tools/limits_table.py."""
    rows = limits_table.table(limits_table.SOURCE.read_text())
    assert rows.count("\n") - 2 == len(dataclasses.fields(Limits))
    text = limits_table.PAGE.read_text()
    assert text == limits_table.page(text, rows), "run .venv/bin/python tools/limits_table.py"
