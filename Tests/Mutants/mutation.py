"""Faults of the usual kinds in a Swift source: each changes one line."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Operators have blanks around them in this project, so generics are not mistaken for them.
OPERATORS = {
    "==": ("!=",), "!=": ("==",), "<": ("<=", ">="), "<=": ("<",), ">": (">=", "<="),
    ">=": (">",), "&&": ("||",), "||": ("&&",), "+": ("-",), "-": ("+",), "&+": ("&-",),
    "&-": ("&+",), "*": ("+",), "&": ("|",), "|": ("&",), "^": ("|",), "<<": (">>",), ">>": ("<<",),
    "&<<": ("&>>",), "&>>": ("&<<",), "+=": ("-=",), "-=": ("+=",), "&+=": ("&-=",),
    "|=": ("&=",), "..<": ("...",), "...": ("..<",),
}  # fmt: skip
OPERATOR = re.compile(r"(?<= )(\S{1,3})(?= )|(?<=[\w)\]])(\.\.[.<])(?=[\w(])")
NUMBER = re.compile(r"(?<![\w.$#])(0x[0-9a-fA-F_]+|\d[\d_]*)(?![\w.]|: )")
TRUTH = re.compile(r"\b(true|false)\b")
CONDITION = re.compile(
    r"^(\s*(?:\} else )?(?:if|guard) )(?!let |var |case |#)(.+?)( \{| else \{.*)$"
)
KEYWORD = re.compile(
    r"(?:let|var|return|if|guard|else|for|while|switch|case|default|func|init|defer|do|try|throw|"
    r"break|continue|private|fileprivate|package|public|static|mutating|nonmutating|struct|enum|"
    r"extension|typealias|super|precondition|assert)\b"
)
ASSIGNMENT = re.compile(r"[\w.\[\]()&+ -]+? (?:&?[-+*|&^]?)= [^={}][^{}]*")
CALL = re.compile(r"(?:_ = )?[a-z][\w.\[\]]*\([^{}]*\)")
# Lines that have no behaviour, or whose change cannot be compiled.
SKIPPED = re.compile(
    r"^\s*(?:import|@|precondition\(|assert|#)|\bprecondition\(|@inline|\bfunc \W"
)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A source file with one line changed."""

    path: pathlib.Path
    number: int  # of the line, from 1
    before: str
    after: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.number}"

    def __str__(self) -> str:
        return f"{self.place}\n  - {self.before.strip()}\n  + {self.after.strip()}"

    def applied_to(self, text: str) -> str:
        lines = text.split("\n")
        assert lines[self.number - 1] == self.before
        lines[self.number - 1] = self.after
        return "\n".join(lines)


def masked(line: str) -> str:
    """The line with its comment and the contents of its strings blanked."""
    line = STRING.sub(lambda match: '"' + "_" * (len(match[0]) - 2) + '"', line)
    comment = line.find("//")
    return line if comment < 0 else line[:comment]


def mutants_of(path: pathlib.Path) -> list[Mutant]:
    """All mutants of a file, each once."""
    found: dict[tuple[int, str], Mutant] = {}
    lines = path.read_text().split("\n")
    is_text = False
    for index, line in enumerate(lines):
        if line.count('"""') % 2:
            is_text = not is_text
            continue
        code = masked(line)
        if is_text or not code.strip() or SKIPPED.search(code):
            continue
        for after in changes(line, code, lines, index):
            if after != line:
                found.setdefault((index, after), Mutant(path, index + 1, line, after))
    return list(found.values())


def changes(line: str, code: str, lines: list[str], index: int) -> Iterator[str]:
    """The line with each fault."""
    for match in OPERATOR.finditer(code):
        start, end = match.span()
        for other in OPERATORS.get(match[0], ()):
            yield line[:start] + other + line[end:]
    for match in NUMBER.finditer(code):
        start, end = match.span()
        value = int(match[0].replace("_", ""), 0)
        for other in {value + 1, value - 1} if value else {1}:
            yield line[:start] + str(other) + line[end:]
    for match in TRUTH.finditer(code):
        start, end = match.span()
        yield line[:start] + ("false" if match[0] == "true" else "true") + line[end:]
    if (match := CONDITION.match(code)) and ", " not in outside_parentheses(match[2]):
        head, condition, _ = match.groups()
        rest = line[len(head) + len(condition) :]
        yield f"{head}!({line[len(head) : len(head) + len(condition)]}){rest}"
    if is_statement(code.strip()) and is_alone(lines, index):
        indentation = line[: len(line) - len(line.lstrip())]
        yield f"{indentation}do {{}}  // removed"


def is_statement(code: str) -> bool:
    """Whether it is an assignment or a call."""
    if KEYWORD.match(code):
        return False
    return bool(ASSIGNMENT.fullmatch(code) or CALL.fullmatch(code))


def outside_parentheses(text: str) -> str:
    """The text without what is in parentheses, brackets and braces."""
    depth, rest = 0, []
    for character in text:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0:
            rest.append(character)
    return "".join(rest)


def is_alone(lines: list[str], index: int) -> bool:
    """Whether a line is a whole statement: it is balanced, and its neighbours do not go on."""
    line = masked(lines[index]).rstrip()
    before = masked(lines[index - 1]).rstrip() if index else ""
    after = masked(lines[index + 1]).strip() if index + 1 < len(lines) else ""
    is_balanced = all(line.count(left) == line.count(right) for left, right in ("()", "[]", "{}"))
    starts = before.endswith(("{", "}", ":")) or before == "" or not before.endswith(
        (",", "(", "=", "&&", "||", "+", "?", "return", "[")
    )
    goes_on = after.startswith((".", "?", "&&", "||", "+", "-", ")", "]"))
    return is_balanced and starts and not goes_on
