"""What the compiler makes of the interfaces: sizes, offsets and vtable slots of every class, struct and enumeration that crosses
the plugin boundary, as text. Read from the debug information of one translation unit that includes the header of each kind.

    class hansa::Updates: size 8
      slot 2: hansa::Updates::group() const -> const hansa::Group&
    struct hansa::Group: size 64
      at 0: std::string kind
"""

import json
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

KINDS_OWN_HEADER = re.compile(r'string_view kKind = "[a-z_]+/\d+"')
NUMBERS = re.compile(r"#define (HANSA_(?:TRAIT|ABI|ENTRY|NOTE)_\w+) (.*)")


def compile_flags(build):
    """The compiler, and the options that say where headers are, of a source that knows the interfaces."""
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if "plugin_fedavg_objects.dir" in entry["command"]:  # the plugin's source itself, or a file that includes it
            words = shlex.split(entry["command"])
            break
    compiler = next(word for word in words if re.fullmatch(r"(.*/)?(c\+\+|g\+\+|clang\+\+)(-\d+)?", word))
    flags = []
    for word, following in zip(words, words[1:] + [""]):
        if re.match(r"-(I|D|std=)", word):
            flags.append(word)
        elif word == "-isystem":
            flags += [word, following]
    return compiler, flags


def interface_headers(include):
    return ["plugin.h"] + sorted(path.name for path in (include / "hansa").glob("*.hpp") if KINDS_OWN_HEADER.search(path.read_text()))


def describe(build, include, scratch):
    """The text, of the headers under `include`."""
    compiler, flags = compile_flags(build)
    source, thing = scratch / "interfaces.cpp", scratch / "interfaces.o"
    source.write_text("".join(f"#include <hansa/{header}>\n" for header in interface_headers(include)))
    run(compiler, f"-I{include}", *flags, "-g", "-gdwarf-4", "-fno-eliminate-unused-debug-types", "-femit-class-debug-always", "-c", source, "-o", thing)
    records = Records(run("readelf", "--debug-dump=info", "--wide", thing))
    macros = run(compiler, "-dM", "-E", include / "hansa" / "plugin.h")
    numbers = [f"  {name}: {value}" for name, value in sorted(NUMBERS.findall(macros))]
    return "\n\n".join(records.texts() + ["\n".join(["numbers of plugin.h", *numbers])]) + "\n"


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- debug information ---------------------------------------------------------------------------------------------------


@dataclass
class Entry:
    tag: str
    parent: "Entry | None"
    attributes: dict = field(default_factory=dict)
    children: list = field(default_factory=list)

    @property
    def name(self):
        return self.attributes.get("name", "")

    @property
    def path(self):
        above = self.parent.path if self.parent and self.parent.tag != "compile_unit" else ""
        return f"{above}::{self.name}" if above and self.name else above or self.name

    def number(self, key):
        return int(self.attributes[key].split()[0], 0) if key in self.attributes else None


HEADER = re.compile(r" <(\w+)><(\w+)>: Abbrev Number: \d+(?: \(DW_TAG_(\w+)\))?")
ATTRIBUTE = re.compile(r"    <\w+>   DW_AT_(\w+) *: (?:\((?:strp|string|line_strp)\) (?:\(offset: \w+\): )?|\(\w+\) )?(.*)")
WANTED = {"name", "type", "byte_size", "declaration", "data_member_location", "vtable_elem_location", "linkage_name", "const_value",
          "artificial", "virtuality"}
TYPES = ("class_type", "structure_type", "enumeration_type", "union_type")


class Records:
    def __init__(self, dump):
        self.by_offset, self.top = {}, []
        stack = []
        for line in dump.split("\n"):
            if line.startswith(" <"):
                depth, offset, tag = HEADER.match(line).groups()
                depth = int(depth, 16)
                if tag is None:  # the end of a list of children
                    continue
                del stack[depth:]
                entry = Entry(tag, stack[-1] if stack else None)
                (stack[-1].children if stack else self.top).append(entry)
                self.by_offset[int(offset, 16)] = entry
                stack.append(entry)
            elif (found := ATTRIBUTE.match(line)) and found[1] in WANTED and stack:
                stack[-1].attributes[found[1]] = found[2].strip()

    def type_name(self, entry):
        """As C++ writes it, with typedefs resolved: what counts is what is there."""
        if "type" not in entry.attributes:
            inner = None
        else:
            inner = self.by_offset[int(re.match(r"<(\w+)>", entry.attributes["type"])[1], 16)]
        return self.spelled(inner)

    def spelled(self, entry):
        if entry is None:
            return "void"
        wrapped = {"pointer_type": "*", "reference_type": "&", "rvalue_reference_type": "&&"}
        if entry.tag in wrapped:
            return self.type_name(entry) + wrapped[entry.tag]
        if entry.tag == "const_type":
            inner = self.type_name(entry)
            return f"{inner} const" if inner.endswith("*") else f"const {inner}"
        if entry.tag == "typedef":
            return self.type_name(entry)
        if entry.tag == "subroutine_type":
            return f"{self.type_name(entry)}({self.parameters(entry)})"
        return plain(entry.path)

    def parameters(self, entry):
        return ", ".join(self.type_name(child) for child in entry.children
                         if child.tag == "formal_parameter" and "artificial" not in child.attributes)

    def texts(self):
        unit = self.top[0]
        found = {}
        for entry in unit.children:
            if entry.tag == "namespace" and entry.name == "hansa":
                for child in entry.children:
                    self.collect(child, found)
            elif entry.name.startswith("Hansa"):
                self.collect(entry, found)
        return [found[path] for path in sorted(found)]

    def collect(self, entry, found):
        if entry.tag not in TYPES or "declaration" in entry.attributes or "byte_size" not in entry.attributes:
            return
        lines = [f"{entry.tag.replace('structure', 'struct').replace('enumeration', 'enum').replace('_type', '')} "
                 f"{entry.path}: size {entry.number('byte_size')}"]
        for child in entry.children:
            if child.tag == "inheritance":
                lines.append(f"  base at {child.number('data_member_location')}: {self.type_name(child)}")
            elif child.tag == "member" and "data_member_location" in child.attributes and "artificial" not in child.attributes:
                lines.append(f"  at {child.number('data_member_location')}: {self.type_name(child)} {child.name}")
            elif child.tag == "enumerator":
                lines.append(f"  {child.name}: {child.attributes['const_value']}")
            elif child.tag == "subprogram" and "vtable_elem_location" in child.attributes and "artificial" not in child.attributes:
                slot = int(re.search(r"DW_OP_constu: (\d+)", child.attributes["vtable_elem_location"])[1])
                const = " const" if child.attributes.get("linkage_name", "").startswith("_ZNK") else ""
                lines.append(f"  slot {slot}: {child.name}({self.parameters(child)}){const} -> {self.type_name(child)}")
            elif child.tag == "subprogram" and child.name.startswith("~") and "virtuality" in child.attributes:
                lines.append("  destructor: virtual")
            else:
                self.collect(child, found)
        found[entry.path] = "\n".join(lines)


def plain(name):
    """Standard types as people write them."""
    name = name.replace("::__cxx11::", "::")
    name = re.sub(r"basic_string_view<char, std::char_traits<char> ?>", "string_view", name)
    name = re.sub(r"basic_string<char, std::char_traits<char>, std::allocator<char> ?>", "string", name)
    while (shorter := re.sub(r", std::(allocator|default_delete)<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>(?= ?>)", "", name)) != name:
        name = shorter
    return name.replace(" >", ">").replace(", 18446744073709551615", "")


# ---- comparison ----------------------------------------------------------------------------------------------------------

ADVICE = """
Plugins that were built before the change would read the wrong bytes or run the wrong function. Undo it; or, where it is meant, make a
new revision of every kind that it touches ("aggregator/2") and an adapter for the old one (core/plugin_host/README.md). Tables of
plugin.h may grow at their end in a minor version: raise HANSA_ABI_MINOR. Then write the list anew: UPDATE_LAYOUT=1 ./dev test layout"""


def parsed(text):
    """{"class hansa::Layout": {"size": "48", "at 0": "…"}}, in order."""
    classes = {}
    for block in text.strip().split("\n\n"):
        head, *lines = block.split("\n")
        name, _, size = head.partition(": size ")
        classes[name] = {"size": size} if size else {}
        for line in lines:
            place, _, what = line.strip().partition(": ")
            while place in classes[name]:  # an enumerator never; an empty base beside a member
                place += "'"
            classes[name][place] = what
    return classes


def differences(frozen, now):
    """Sentences, each naming class and place."""
    old, new = parsed(frozen), parsed(now)
    found = [f"{name} is gone" for name in old if name not in new]
    found += [f"{name} is new" for name in new if name not in old]
    for name, places in old.items():
        held = new.get(name, places)
        for place in [*places, *(place for place in held if place not in places)]:
            was, is_now = places.get(place), held.get(place)
            if was != is_now:
                found.append(f"{name}, {place}: was {was or 'nothing'}, is now {is_now or 'nothing'}")
    return found
