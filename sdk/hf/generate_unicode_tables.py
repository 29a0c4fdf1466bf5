#!/usr/bin/env python3
"""Writes unicode_tables.inc: which code points the `tokenizers` package counts as letters, numbers, space ...

    python sdk/hf/generate_unicode_tables.py        # needs the package `tokenizers`; run again when its version changes

Why tables: a tokenizer's ids depend on these sets, and each library carries another Unicode version. The reference is
asked itself, so there is nothing to get wrong: its pre-tokenizers split a text of all code points, and its added tokens
are tried beside each code point.
"""
import pathlib
import struct

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn").split()
SCRIPTS = ("Han", "Hiragana", "Katakana", "Hangul")
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, SCALARS))


def matched_by(expression):
    """The code points that a regular expression matches, by what Split(behavior = removed) takes away."""
    pieces = pre_tokenizers.Split(Regex(expression), "removed").pre_tokenize_str(TEXT)
    matched, position = set(), 0
    for _, (begin, end) in pieces:
        matched.update(SCALARS[position:begin])
        position = end
    matched.update(SCALARS[position:])
    return matched


def split_off_by(splitter):
    """The code points that a pre-tokenizer separates from a letter before them, or takes away."""
    return {c for c in SCALARS if len(splitter.pre_tokenize_str(f"a{chr(c)}a")) > 1}


def spaces():
    return {c for c in SCALARS if pre_tokenizers.WhitespaceSplit().pre_tokenize_str(f"a{chr(c)}a")[0][0] == "a"}


def changed_to(normalizer, before, after):
    """The code points that a normaliser makes into `after`, with `before` before both."""
    return {c for c in SCALARS if normalizer.normalize_str(before + chr(c)) == before + after}


def bert(**only):
    return normalizers.BertNormalizer(**{"clean_text": False, "handle_chinese_chars": False, "strip_accents": False,
                                         "lowercase": False, **only})


def bert_marks():
    """What strip_accents takes away, of the code points that have no decomposition: it decomposes first."""
    decompose = normalizers.NFD()
    return {c for c in changed_to(bert(strip_accents=True), "a", "") if decompose.normalize_str(chr(c)) == chr(c)}


def bert_ideographs():
    return {c for c in SCALARS if bert(handle_chinese_chars=True).normalize_str(chr(c)) == f" {chr(c)} "}


def in_one_cluster_with_x():
    """Code points that join an x before them in one grapheme cluster, and those that join one after them.

    Precompiled normalises a cluster of up to 5 bytes by the first entry that it begins with, dropping the rest; a longer
    one character by character. The map here has one entry, x to y.
    """
    units = [0] * 512  # a double array: the root leads by x to a node with a leaf
    units[0], units[1 ^ ord("x")], units[1 ^ ord("x") ^ 0x100] = 1 << 10, ord("x") | 1 << 8 | 0x100 << 10, 1 << 31
    normalizer = normalizers.Precompiled(struct.pack("<I512I", 4 * 512, *units) + b"y\0")
    after = {c for c in SCALARS if normalizer.normalize_str("x" + chr(c)) == "y"}
    marks = "\u0301\u0301"
    before = {c for c in SCALARS[0x80:] if normalizer.normalize_str(chr(c) + "x" + marks) == chr(c) + "y" + marks}
    return after, before


def lower_case_rows():
    """Runs of code points with the same distance to their lower case, one or two apart; and what has two of them."""
    lower = normalizers.Lowercase()
    runs, pairs = [], []
    for c in SCALARS:
        result = lower.normalize_str(chr(c))
        if result == chr(c):
            continue
        if len(result) > 1:
            assert len(result) == 2
            pairs.append(f"{{0x{c:X}, 0x{ord(result[0]):X}, 0x{ord(result[1]):X}}}")
            continue
        distance = ord(result) - c
        last = runs[-1] if runs else None
        if last and last["distance"] == distance and (c - last["last"] == last["step"] or
                                                      (last["first"] == last["last"] and c - last["last"] <= 2)):
            last["step"], last["last"] = c - last["last"], c
        else:
            runs.append({"first": c, "last": c, "step": 1, "distance": distance})
    return [f"{{0x{r['first']:X}, 0x{r['last']:X}, {r['step']}, {r['distance']}}}" for r in runs], pairs


def beside_added_token(code_point_kind):
    """Code points that added tokens count as part of a word ("word") or as space to strip ("space")."""
    mark = "\ue000mark\ue001"
    engine = Tokenizer(models.BPE(vocab={mark: 0}, merges=[]))
    engine.add_tokens([AddedToken(mark, single_word=code_point_kind == "word", lstrip=code_point_kind == "space",
                                  normalized=False)])
    found = set()
    for c in SCALARS:
        tokens = engine.encode(chr(c) + mark).offsets
        if code_point_kind == "word" and not tokens:
            found.add(c)
        if code_point_kind == "space" and tokens[0][0] == 0:
            found.add(c)
    return found


def ranges_of(members):
    ranges = []
    for c in sorted(members):
        if ranges and ranges[-1][1] + 1 == c:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return ranges


def rows(cells, per_row):
    return "".join("  " + ", ".join(cells[i:i + per_row]) + ",\n" for i in range(0, len(cells), per_row))


def table(name, members):
    cells = [f"{{0x{a:X}, 0x{b:X}}}" for a, b in ranges_of(members)]
    return f"constexpr CodePointRange k{name}[] = {{\n{rows(cells, 6)}}};\n"


def main():
    category_of, seen = [], 0
    for category in CATEGORIES:
        members = matched_by(rf"\p{{{category}}}")
        seen += len(members)
        category_of += [(a, b, category) for a, b in ranges_of(members) if category != "Cn"]
    assert seen == len(SCALARS), "the categories of the reference are not a partition"
    joins_before, joins_after = in_one_cluster_with_x()
    lower_runs, lower_pairs = lower_case_rows()
    cells = [f"{{0x{a:X}, 0x{b:X}, Gc::{c}}}" for a, b, c in sorted(category_of)]
    parts = [
        f"// Generated by generate_unicode_tables.py from tokenizers {tokenizers.__version__}: do not edit.\n",
        "enum class Gc : unsigned char {\n" + rows(list(CATEGORIES), 15) + "};\n",
        "struct CategoryRange { std::uint32_t first, last; Gc category; };\n",
        "// General categories; what is in no range is Cn.\n",
        f"constexpr CategoryRange kCategories[] = {{\n{rows(cells, 5)}}};\n",
        "// The expression engine's \\s and \\w.\n", table("Space", matched_by(r"\s")), table("Word", matched_by(r"\w")),
        "// Digits.\n", table("Digit", split_off_by(pre_tokenizers.Digits(individual_digits=True))),
        "// What lstrip and rstrip of added tokens take away; what single_word counts as a part of a word.\n",
        table("AddedTokenSpace", beside_added_token("space")), table("AddedTokenWord", beside_added_token("word")),
        "// White space and punctuation of the pre-tokenizers, and \\w of Whitespace, which has another engine.\n",
        table("WhiteSpace", spaces()), table("Punctuation", split_off_by(pre_tokenizers.Punctuation())),
        table("WhitespaceWord", {c for c in SCALARS
                                 if len(pre_tokenizers.Whitespace().pre_tokenize_str(f"a{chr(c)}")) == 1} - spaces()),
        "// BertNormalizer: removed by clean_text, made a space by it, ideographs, accents. StripAccents.\n",
        table("BertRemoved", changed_to(bert(clean_text=True), "", "")),
        table("BertSpace", changed_to(bert(clean_text=True), "", " ")),
        table("BertIdeograph", bert_ideographs()), table("BertMark", bert_marks()),
        table("CombiningMark", changed_to(normalizers.StripAccents(), "a", "")),
        "// Grapheme clusters: what joins the character before it, and what joins the one after it.\n",
        table("JoinsBefore", joins_before), table("JoinsAfter", joins_after),
        "// Lower case, without regard to the context.\n",
        "struct LowerCaseRun { std::uint32_t first, last; int step, distance; };\n",
        f"constexpr LowerCaseRun kLowerCase[] = {{\n{rows(lower_runs, 6)}}};\n",
        "struct LowerCasePair { std::uint32_t upper, first, second; };\n",
        f"constexpr LowerCasePair kLowerCasePairs[] = {{\n{rows(lower_pairs, 6)}}};\n",
        "// Scripts.\n", *(table(script, matched_by(rf"\p{{{script}}}")) for script in SCRIPTS),
    ]
    target = pathlib.Path(__file__).with_name("unicode_tables.inc")
    target.write_text("".join(parts))
    print(f"wrote {target}: {sum(p.count(chr(10)) for p in parts)} lines")


if __name__ == "__main__":
    main()
