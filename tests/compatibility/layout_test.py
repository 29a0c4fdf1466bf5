"""Classes and structs that cross the plugin boundary are laid out as they were when version 1 was frozen."""

import os
import shutil
from pathlib import Path

import layout

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "sdk" / "include"
FROZEN = Path(__file__).parent / "layout_v1.txt"


def test_layouts_and_vtables_are_those_of_version_1(build_dir, tmp_path):
    now = layout.describe(build_dir, INCLUDE, tmp_path)
    if os.environ.get("UPDATE_LAYOUT"):
        FROZEN.write_text(now)
    changed = layout.differences(FROZEN.read_text(), now)
    assert not changed, "\n".join(["the plugin boundary changed:", *changed]) + layout.ADVICE


def test_an_accidental_change_is_named_with_class_slot_and_offset(build_dir, tmp_path):
    shutil.copytree(INCLUDE, tmp_path / "include")
    changes = {
        "aggregator.hpp": ("  virtual bool surveys() const", "  virtual double trust(const Contribution&) const { return 1; }\n  virtual bool surveys() const"),
        "types.hpp": ("  double scale = 1;", "  float scale = 1;"),
        "model.hpp": ("  bool bias = false;", "  bool bias = false, fused = false;"),
        "privacy.hpp": ("  virtual void end_release() {}\n", ""),
        "plugin.h": ("#define HANSA_TRAIT_FLAT (1ull << 14)", "#define HANSA_TRAIT_FLAT (1ull << 26)"),
        "trainer.hpp": ("struct TrainContext {", "struct Schedule {\n  double warmup = 0;\n};\nstruct TrainContext {"),
    }
    for header, (before, after) in changes.items():
        path = tmp_path / "include" / "hansa" / header
        text = path.read_text()
        assert text.count(before) == 1, header
        path.write_text(text.replace(before, after))
    now = layout.describe(build_dir, tmp_path / "include", tmp_path)
    assert set(layout.differences(FROZEN.read_text(), now)) >= {
        "class hansa::Aggregator, slot 9: was surveys() const -> bool, is now trust(const hansa::Contribution&) const -> double",
        "class hansa::Aggregator, slot 10: was survey(const hansa::Updates&) -> void, is now surveys() const -> bool",
        "struct hansa::Group, at 56: was double scale, is now float scale",
        "struct hansa::Module, at 57: was bool stored_transposed, is now bool fused",
        "struct hansa::Module, at 58: was nothing, is now bool stored_transposed",
        "class hansa::Privacy, slot 10: was end_release() -> void, is now nothing",
        "numbers of plugin.h, HANSA_TRAIT_FLAT: was (1ull << 14), is now (1ull << 26)",
        "struct hansa::Schedule is new",
    }
