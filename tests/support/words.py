"""Hold the project's prose to the rules of CONTRIBUTING.md that a program can check: `python -m support.words`.

A passage is one piece of text with its place and its kind; the rules are a pure function from a passage to its
faults. Docstrings, messages and help texts come from the syntax tree, comments from tokens.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

TOP = Path(__file__).parents[2]
LONGEST = 25
"""Words of a sentence that a user reads."""

EXEMPT: tuple[str, ...] = ("docs/architecture.md", "tests/support/words.py", "tests/unit/test_words.py")
"""Paths, by how they begin, whose text is not checked: one is still to be written, the others have every fault."""

BANNED = re.compile(
    r"\b(?:wish(?:e[sd]|ing)?|aim(?:s|ed|ing)?|seldom|anew|dear(?:er|est|ly)?|reckon(?:s|ed|ing)?|who(?:m|so)ever"
    r"|for to|ail(?:s|ed|ing|ment)?|dawdl(?:e[sd]?|ing)|(?:some|any|every|no)body's|of nobody"
    r"|nothing of \w+'s|(?:where|there|here)(?:of|by|upon)|lest|shan't|naught|betimes|save for)\b"
    r"|\bof \w+'s(?=[,.;:)]|$| (?:and|or|but|is|are|was|were|has|have|that|which|by|on|in|at|for|from|to|with)\b)",
    re.IGNORECASE,
)
"""Words and turns for which the field, or plain English, has another: CONTRIBUTING.md names them."""
OPENING = re.compile(r"(?:What|Who|Whose|Whom|Which|Whatever|Whoever|Whichever)\b(?!.*\?$)", re.DOTALL)
"""How a sentence does not begin, unless it is a question."""
PRIVATE = re.compile(r"(?<![\w.-])/(?:work|root|home/\w+|Users/\w+)/[\w.-]|\b\w+\.(?:internal|corp|lan)\b")
"""Paths and hosts of the machine that somebody works on."""
NOT_A_VERB = re.compile(
    r"(?:The|A|An|This|That|These|Those|Its|Our|Your|Their|It|They|We|I|He|She|All|Each|Every|Some|Any|No"
    r"|None|Both|One|Two|Three|Many|More|Most|Few|Only|Such|Another|Other|Else|Everything|Nothing"
    r"|Something|Anything|Everybody|Everyone|Nobody|Somebody|Whoever|Whatever|What|Who|Whose|Whom|Which"
    r"|Where|When|While|Why|How|Whether|If|Until|Unless|Since|Before|After|As|At|By|For|From|In|Into|Of|On"
    r"|Out|Over|To|Under|With|Within|Without|Always|Never|Again|Once|First|Second|Last|Next|True|False|Be"
    r"|Errors|Plain|Silence|Inner|Outer)"
)
"""Words by which a function's docstring does not begin."""
VERBS_LIKE_NOUNS = frozenset(
    {"Bring", "Embed", "Feed", "Need", "Ping", "Proceed", "Seed", "Shed", "Speed", "String"}
)
"""Imperatives that look like a participle."""
OLD_DEFAULT = re.compile(r"\babsent:|\bleft out:|by default\b|\bdefaults? (?:is|to|are)\b|(?<!%)\(default(?!: )")
"""How a help text does not name its default: that is `(default: …)`."""


class Kind(Enum):
    DOCUMENT = "document"
    HELP = "help"
    MESSAGE = "message"
    FUNCTION = "docstring of a function"
    CLASS = "docstring of a class"
    DOCSTRING = "docstring"
    COMMENT = "comment"
    STRING = "string"


READ_BY_USERS = frozenset({Kind.DOCUMENT, Kind.HELP, Kind.MESSAGE})


@dataclass(frozen=True)
class Passage:
    """A piece of prose: the line that it begins in, counted from 1, its kind, its text."""

    line: int
    kind: Kind
    text: str


def find_faults(passage: Passage) -> Iterator[str]:
    """Say what breaks a rule, and where it helps, what would be right."""
    text = passage.text
    for found in BANNED.finditer(text):
        yield f"{found.group()!r} is on the list of words not to use"
    for found in PRIVATE.finditer(text):
        yield f"{found.group()!r} names a path or a host of somebody's own machine"
    if passage.kind in READ_BY_USERS:
        for sentence in split_sentences(text):
            if OPENING.match(sentence):
                yield f"a sentence begins with {sentence.split()[0]!r}: name the thing"
            if (length := len(sentence.split())) > LONGEST:
                yield f"a sentence of {length} words, {LONGEST} at most: {' '.join(sentence.split()[:6])} …"
    if passage.kind is Kind.HELP:
        for found in OLD_DEFAULT.finditer(text):
            yield f"{found.group()!r}: a default is written (default: …)"
    if passage.kind is Kind.FUNCTION and not begins_with_a_verb(text):
        yield f"a function's docstring begins with an imperative verb, not with {first_word(text)!r}"
    if passage.kind is Kind.CLASS and (OPENING.match(text) or first_word(text) in ("Raises", "If", "How", "Why")):
        yield f"a class's docstring begins with a noun, not with {first_word(text)!r}"


def first_word(text: str) -> str:
    return re.split(r"[\s,:;]", text.strip(), maxsplit=1)[0]


def begins_with_a_verb(text: str) -> bool:
    """Tell whether this can be an imperative: `Take the lease`, but not `Takes`, `Taking`, `The` or `etcd`."""
    word = first_word(text)
    if not re.fullmatch(r"[A-Z][a-z]+(-[a-z]+)?", word) or NOT_A_VERB.fullmatch(word):
        return False
    if word.endswith("s"):
        return word.endswith(("ss", "us"))
    return not word.endswith(("ing", "ed")) or word in VERBS_LIKE_NOUNS


def split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a paragraph. A blank line, a full stop and a closing colon end one."""
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(
            r"(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[\"'(*\[`A-Z0-9]|(?:etcd|flannel|nft|overlayd)\b)|:\s*\n",
            paragraph,
        ):
            if words := " ".join(sentence.split()):
                yield words


def read_python(source: str) -> Iterator[Passage]:
    """Yield docstrings, help texts, messages, other strings with a space in them, and comments."""
    tree = ast.parse(source)
    told = set[int]()
    for node in ast.walk(tree):
        for passage, constant in (*_docstrings(node), *_arguments(node)):
            if passage.text and not _ids(constant) & told:
                told |= _ids(constant)
                yield passage
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told and " " in str(node.value):
            yield Passage(node.lineno, Kind.STRING, str(node.value))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Passage(token.start[0], Kind.COMMENT, token.string.lstrip("#! "))


def _ids(node: ast.AST) -> set[int]:
    return {id(part) for part in ast.walk(node) if isinstance(part, ast.Constant)}


def _docstrings(node: ast.AST) -> Iterator[tuple[Passage, ast.AST]]:
    body = getattr(node, "body", None)
    if not isinstance(body, list):
        return
    for place, statement in enumerate(body):
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            continue
        if isinstance(text := statement.value.value, str):
            kind = _kind_of_docstring(node) if place == 0 else Kind.DOCSTRING
            yield Passage(statement.lineno, kind, text), statement


def _kind_of_docstring(node: ast.AST) -> Kind:
    if isinstance(node, ast.ClassDef):
        return Kind.DOCSTRING if node.name.startswith("Test") else Kind.CLASS
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return Kind.DOCSTRING
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    is_value = any(name.endswith(("property", "fixture", ".setter")) or "fixture(" in name for name in decorators)
    return Kind.DOCSTRING if is_value or node.name.startswith(("test_", "__")) else Kind.FUNCTION


def _arguments(node: ast.AST) -> Iterator[tuple[Passage, ast.AST]]:
    """Yield the text that a call hands to a user: of a help text, an error, a problem."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        for argument in node.exc.args:
            yield Passage(node.lineno, Kind.MESSAGE, _words(argument)), argument
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func).rpartition(".")[2]
    for keyword in node.keywords:
        if keyword.arg in ("help", "description", "epilog"):
            yield Passage(keyword.value.lineno, Kind.HELP, _words(keyword.value)), keyword.value
    if name in ("Problem", "ProblemCode", "CommandError", "_faulty"):
        for argument in node.args:
            yield Passage(argument.lineno, Kind.MESSAGE, _words(argument)), argument


def _words(node: ast.AST) -> str:
    """Put an expression's text together, with X for what is known at run time only."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) and " " in node.value else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)  # type: ignore[misc]
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    return ""


def read_markdown(text: str) -> Iterator[Passage]:
    """Yield headings, paragraphs, list items and cells of tables; code is one word, and no prose."""
    text = re.sub(r"<!--.*?-->", "", text)
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block.group().count("\n"), text, flags=re.M | re.DOTALL)
    lines: list[str] = []
    begun = 1
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        is_code = line.startswith("    ") and not (lines and re.match(r"\s*(?:[-*]|\d+\.) ", lines[0]))
        starts = is_code or not line.strip() or re.match(r"\s*(?:[-*#|>]|\d+\.) ?", line)
        if starts and lines:
            yield Passage(begun, Kind.DOCUMENT, _plain("\n".join(lines)))
            lines = []
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            yield from (Passage(number, Kind.DOCUMENT, _plain(cell)) for cell in cells if cell.strip(" -:"))
        elif line.strip() and not is_code:
            begun = begun if lines else number
            lines.append(line)


def _plain(text: str) -> str:
    text = re.sub(r"^\s*(?:[-*>]|#+|\d+\.) ", "", text.strip())
    text = re.sub(r"`[^`]*`", "Code", text)  # so that it can begin a sentence
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")


def read_comments_of_c(source: str) -> Iterator[Passage]:
    for found in re.finditer(r"/\*(.*?)\*/|//(.*)", source, re.DOTALL):
        yield Passage(source.count("\n", 0, found.start()) + 1, Kind.COMMENT, found.group(1) or found.group(2))


def check(path: str, text: str) -> Iterator[str]:
    """Yield a line for each fault in a file of the project, `path:line: fault`."""
    readers = {".py": read_python, ".md": read_markdown, ".c": read_comments_of_c, ".h": read_comments_of_c}
    for passage in readers[Path(path).suffix](text):
        if passage.kind is Kind.FUNCTION and path.startswith(
            "tests/"
        ):  # a helper is a value as often as an action
            passage = replace(passage, kind=Kind.DOCSTRING)
        for fault in find_faults(passage):
            yield f"{path}:{passage.line}: {fault}"


def list_files() -> list[str]:
    """List the files that are or will be under version control and have prose."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md", "*.c", "*.h"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
    return sorted(path for path in listed.split() if (TOP / path).exists())


def main(wanted: Iterable[str]) -> int:
    exempt = EXEMPT if not wanted else ()
    names = tuple(wanted) or ("",)
    files = [path for path in list_files() if path.startswith(names) and not path.startswith(exempt)]
    faults = [fault for path in files for fault in check(path, (TOP / path).read_text())]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
