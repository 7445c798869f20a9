"""
The documentation: what there is is documented, and what is documented is there.

Pages that can be made from code are (`make docs`); here is what holds the others to it. A page names commands, options, keys,
variables, metrics, routes, modules and places in other pages, and each of these must exist.
"""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from idxctl.cli.app import NOUNS, STATUSES
from idxctl.config.keys import SECTIONS, VARIABLES
from idxctl.core import errors, metrics
from idxctl.monitoring.alerts import ALERTS
from idxctl.web.routes import ENDPOINTS
from making import commands as made_commands
from making import errors as made_errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
COMMANDS = {one.words: one for one in [made_commands.root(), *made_commands.commands()]}
FLAGS = set().union(*(one.flags for one in COMMANDS.values()))
OTHERS_FLAGS = {"--require-hashes", "--no-deps", "--disable-triggers", "--data-only"}  # of pip and pg_restore


def text_of(path):
    return path.read_text(encoding="utf-8")


def code_in(page):
    """Return what stands in code spans and, line by line, in code blocks that are no other program's."""
    text = text_of(page)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for kind, block in blocks if kind in {"", "sh"} for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*re.findall(r"`([^`]+)`", prose), *lines]


pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


# --- what there is is documented -------------------------------------------------------------------------------------


def test_the_pages_are_what_the_code_makes():
    for path, text in runpy.run_path(str(DOCS / "make.py"))["made"]().items():
        assert path.exists(), f"make docs writes {path.name}"
        assert text_of(path) == text, f"make docs writes {path.name}"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_argument_and_option_says_what_it_does(command):
    assert command.spec.help
    assert [one.name for one in command.spec.params if not (one.help or "").strip(" .")] == []


def test_every_noun_is_on_the_page_of_commands():
    assert {words[0] for words in COMMANDS if words} == {name for name, noun in NOUNS.items() if not noun.hidden}


def test_every_exit_status_is_in_readme_and_on_the_page_of_commands():
    stated = ", ".join(f"{status} {meaning}" for status, meaning in STATUSES.items())
    assert stated in " ".join(text_of(ROOT / "README.md").split())
    page = text_of(DOCS / "commands.md")
    assert [status for status in STATUSES if f"| {status} | {STATUSES[status]}" not in page] == []


def test_every_error_has_an_exit_status_that_is_documented():
    ours = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.IdxctlError)]
    assert {*ours} == {*made_errors.classes()}
    assert {one.exit_status for one in ours} <= set(STATUSES)
    assert all(f"{one.__name__}" in errors.__doc__ for one in ours)


def test_every_name_that_idxctl_gives_a_letter_stands_in_the_code():
    code = "".join(text_of(path) for path in (ROOT / "idxctl").rglob("*.py"))
    for name in made_errors.LETTERS:
        known = re.sub(r"^(sql_|http_|way_).*", r"\1", name)
        assert known in code, name


def test_every_metric_and_every_value_of_its_labels_is_explained():
    for metric in metrics.ALL:
        assert metric.help
        assert metric.reasons or "reason" not in metric.labels
        assert all(metric.reasons.values())


PLACES = {
    "{number}": "882",
    "{index}": "marketplace_listings",
    "{document}": "12345",
}  # in a path, as the page has them


def filled(path):
    """Return the path of a route as a page has it."""
    return re.sub(r"\{\w+\}", lambda place: PLACES[place.group()], path)


def test_every_route_is_documented_with_its_parameters():
    page = text_of(DOCS / "http.md")
    rows = {row.split("`")[1].split("?")[0]: row for row in page.splitlines() if re.match(r"\| `(GET|POST) ", row)}
    for endpoint in ENDPOINTS:
        name = f"{endpoint.method} {filled(endpoint.path)}"
        assert name in rows, name
        assert [one.name for one in endpoint.parameters if not re.search(rf"\b{one.name}\b", rows[name])] == [], name


# Pages whose blocks a test runs: test_readme, test_library_docs, test_how_to. What no test can run has no language.
RUN = {ROOT / "README.md", DOCS / "library.md", *(DOCS / "how-to").glob("*.md")}


@pages
def test_every_block_of_code_is_run_by_a_test(page):
    text = text_of(page)
    assert page in RUN or re.findall(r"^```\w+$", text, re.MULTILINE) == []
    assert (
        re.findall(
            r"^\n    (?! )\S.*$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
        )
        == []
    )


# --- what is documented is there -------------------------------------------------------------------------------------


def words_of(line):
    """Return the words of a command as a page writes it: brackets are its way to say that something may be left out."""
    plain = re.sub(r"[\[\]]", " ", line.replace("…", "...").partition(" # ")[0])
    try:
        return shlex.split(plain)
    except ValueError:
        return plain.split()


def unknown_in(line):
    """Return what the command line of *line* has that idxctl has not, or None."""
    words = words_of(line)[1:]
    while words and words[0].startswith("-"):  # global options
        if words[0].split("=")[0] not in COMMANDS[()].flags:
            return words[0]
        words = words[2 if words[0] == "--config" else 1 :]
    if not words or words[0].isupper() or words[0] == "...":
        return None
    known = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in COMMANDS), None)
    if known is None:  # a noun alone
        return None if len(words) == 1 and words[0] in NOUNS else " ".join(words[:2])
    flags = [word.split("=")[0] for word in words[len(known) :] if re.match(r"--?[a-z]", word)]
    return next((flag for flag in flags if flag not in COMMANDS[known].flags), None)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("idxctl dlq retry --limit 100 [ID…]", None),
        ("idxctl --config shop.toml queue stats -o json", None),
        ("idxctl reindex [--index I] [--if-changed]", None),
        ("idxctl COMMAND --help", None),
        ("idxctl dlq", None),
        ("idxctl dlq mend", "dlq mend"),
        ("idxctl retry", "retry"),
        ("idxctl dlq retry --newest", "--newest"),
        ("idxctl --verbose dlq stats", "--verbose"),
        ("idxctl pause --limit=3", "--limit"),
    ],
)
def test_what_a_page_must_not_name_is_found(line, wrong):
    assert unknown_in(line) == wrong


@pages
def test_commands_and_options_that_a_page_names_exist(page):
    for code in code_in(page):
        for line in re.split(r"\s+(?:&&|\|\|?)\s+|\$ ", code):
            if line.startswith("idxctl "):
                assert unknown_in(line) is None, line
        if code.startswith("--") and len(code) > 2:
            flags = {word.split("=")[0] for word in re.split(r"[ ,/]+", code) if word.startswith("--")}
            assert flags <= FLAGS | OTHERS_FLAGS, code


@pages
def test_metrics_tables_functions_and_alerts_that_a_page_names_exist(page):
    places = [
        *(ROOT / "migrations").glob("*.sql"),
        *(ROOT / "idxctl" / "postgres").rglob("*.sql"),
        *(ROOT / "idxctl" / "postgres").rglob("*.py"),
    ]
    migrations = "".join(map(text_of, places))
    series = {name for metric in metrics.ALL for name in (metric.name, *metric.series)}
    for name in re.findall(r"opensearch_indexing_[a-z_]*[a-z]", text_of(page)):
        assert name in series or re.search(rf"\b{name}\b", migrations), name
    for name in re.findall(r"OpenSearchIndexing\w+", text_of(page)):
        assert name in {alert.name for alert in ALERTS}


@pages
def test_keys_and_variables_that_a_page_names_exist(page):
    text = text_of(page)
    for section, names in re.findall(r"`\[(\w+)\] ([\w, ]+?)(?: =[^`]*)?`", text):
        assert [name for name in names.split(", ") if name not in SECTIONS.get(section, {})] == [], section
    variables = {*VARIABLES, *(f"IDXCTL_{name}_{key}".upper() for name, keys in SECTIONS.items() for key in keys)}
    for name in re.findall(r"\bIDXCTL_[A-Z_]*[A-Z]\b", text):
        assert name in variables | {"IDXCTL_TEST_POSTGRES_BIN", "IDXCTL_TEST_OPENSEARCH_VERSION"}, name


@pages
def test_routes_that_a_page_names_exist(page):
    known = {filled(endpoint.path) for endpoint in ENDPOINTS}
    named = set(re.findall(r"/api/v1/[\w/]*\w", text_of(page)))
    assert named <= known


@pages
def test_targets_of_make_that_a_page_names_exist(page):
    known = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for code in code_in(page):
        found = re.match(r"make ([a-z-]+)", code)
        assert found is None or found[1] in known, code


def slugs(text):
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pages
def test_links_of_a_page_lead_somewhere(page):
    for place in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in place:
            continue
        path, _, anchor = place.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), place
        assert not anchor or anchor in slugs(text_of(target)), place


@pages
def test_files_that_a_page_names_exist(page):
    """Of the form ``worker/batch.py``, ``queue.sql``, ``config/sums.py``: in the package, or from the root."""
    names = {path.name for path in (ROOT / "idxctl").rglob("*.sql")}
    for code in code_in(page):
        for place in re.findall(r"(?<![\w./-])((?:[a-z_]+/)+[a-z_]+\.py)\b", code):
            assert (ROOT / "idxctl" / place).exists() or (ROOT / place).exists(), place
        for name in re.findall(r"^([a-z_]+\.sql)\b(?! [A-Z])", code):
            assert name in names | {"document.sql"}, name


def test_pages_are_reached_from_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#]+)[)#]", text_of(page))
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert [page.name for page in PAGES if page not in reached] == []


def test_the_architecture_is_read_in_one_sitting():
    assert len((ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) < 250
