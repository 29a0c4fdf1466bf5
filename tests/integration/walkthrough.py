"""A tutorial as a program: its files are written, its commands run and its output compared, in the order in which they stand.

    the line before says `path/of/the/file.cpp`:       ```sh                     ```text
    ```cpp                                             commands, in one shell     parts of their output, in order
    the whole file                                     that keeps its folder      … stands for anything
    ```                                                ```                        ```

A block of ```console is for the reader only. Whatever goes wrong is told with the document's line."""

import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

END_OF_BLOCK = "--- end of block"


class Wrong(AssertionError):
    def __init__(self, document, line, what):
        super().__init__(f"{document}:{line}: {what}")


@dataclass
class Block:
    language: str
    line: int  # of its first line of text
    text: str
    before: str  # the last line of prose in front of it

    @property
    def file(self):
        """The file that this block is the text of."""
        named = re.search(r"`([\w./-]+)`:$", self.before)
        return named and named[1]


def blocks(document):
    found, fence, before = [], None, ""
    for number, line in enumerate(Path(document).read_text().splitlines(), start=1):
        if fence is None and line.startswith("```"):
            fence = Block(line[3:].strip(), number + 1, "", before)
        elif fence is not None and line == "```":
            found.append(fence)
            fence, before = None, ""
        elif fence is not None:
            fence.text += line + "\n"
        elif line.strip():
            before = line.strip()
    if fence is not None:
        raise Wrong(document, fence.line - 1, "this block does not end")
    return found


class Shell:
    """One shell for all blocks; it ends at the first command that fails."""

    def __init__(self, folder, environment, seconds):
        self.process = subprocess.Popen(["bash", "--norc", "-e", "-o", "pipefail"], cwd=folder, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.watch = threading.Timer(seconds, self.process.kill)
        self.watch.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.watch.cancel()
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def run(self, commands):
        """Their output, and whether all went well."""
        self.process.stdin.write(f"{{\n{commands}\n}} </dev/null\nprintf '\\n%s\\n' '{END_OF_BLOCK}'\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.rstrip("\n") == END_OF_BLOCK:
                return "".join(lines), True
            lines.append(line)
        return "".join(lines), False


def squeezed(line):
    return " ".join(line.split())


def not_shown(expected, output):
    """The first expected line that the output lacks behind those before it, as (index, line), or None."""
    rest = [squeezed(line) for line in output.splitlines()]
    for index, line in enumerate(expected.splitlines()):
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in squeezed(line).split("…")))
        while rest and not pattern.search(rest[0]):
            rest.pop(0)
        if not rest:
            return index, line
        rest.pop(0)
    return None


def follow(document, folder, environment, seconds=600):
    document = Path(document)
    with Shell(folder, environment, seconds) as shell:
        ran = None
        for block in blocks(document):
            if block.language == "console":
                continue
            if block.language == "sh":
                output, fine = shell.run(block.text)
                ran = block
                if not fine:
                    raise Wrong(document, block.line, f"these commands fail:\n{block.text}\n{output}")
            elif block.language == "text":
                if ran is None:
                    raise Wrong(document, block.line, "output without commands in front of it")
                if missing := not_shown(block.text, output):
                    raise Wrong(document, block.line + missing[0], f"'{missing[1].strip()}' is not in the output of the commands at line {ran.line}:\n{output}")
            elif block.file:
                path = Path(folder) / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            else:
                raise Wrong(document, block.line, "a block that is neither a file (the line before ends with `name`:) nor sh, text or console")
