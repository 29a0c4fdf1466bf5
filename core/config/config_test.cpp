#include "test.hpp"

#include <fstream>

#include "base/error.hpp"
#include "config/fake_catalog.hpp"
#include "config/load.hpp"
#include "config/quantity.hpp"

namespace hansa::config {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSmall = R"(
[model]
use = "tiny"
path = "base"
[adapter]
use = "pairs"
[trainer]
use = "steps"
steps = 5
[data]
use = "lines"
[aggregator]
use = "mean"
)";

struct Workplace {
  TemporaryDirectory directory;
  FakeCatalog catalog = fake_catalog();
  Workplace() {
    write("base/config.json", "{}");
    for (const auto* silo : {"a.txt", "b.txt"}) write(fs::path("silos") / silo, "text");
  }
  fs::path at(const fs::path& name) const { return directory.path() / name; }
  fs::path write(const fs::path& name, const std::string& text) const {
    fs::create_directories(at(name).parent_path());
    std::ofstream(at(name)) << text;
    return at(name);
  }
  LoadResult load_text(const std::string& text, std::vector<std::string> set = {}) const {
    return load(write("p.toml", text), {.set = std::move(set), .working_directory = directory.path()}, catalog);
  }
};

bool says(const LoadResult& result, const std::string& part) {
  return render(result.diagnostics).find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a small pipeline loads, with every default and absolute paths") {
  Workplace w;
  const auto loaded = w.load_text(kSmall);
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  const auto& spec = loaded.spec;
  CHECK(spec.run.name == "p");
  CHECK(spec.model_host.path == w.at("base"));
  CHECK(spec.selector.use == "all");
  CHECK(spec.server_optimizer.use == "add");
  CHECK(spec.round_policy.use == "wait");
  CHECK(spec.evaluator.use == "loss");
  CHECK(spec.privacy.component == nullptr);
  CHECK(spec.trainer.params.find("buffer")->raw().integer == 1 << 20);
  CHECK(spec.train.threads > 0);
}

TEST_CASE("all problems are reported at once and in the order of the file") {
  Workplace w;
  const auto loaded =
      w.load_text(std::string("[run]\nrounds = 0\nsed = 3\n") + kSmall + "flor = 0.1\n[codec]\nuse = \"squeeze\"\n");
  REQUIRE(loaded.diagnostics.size() == 4);
  CHECK(loaded.exit_code() == 1);
  CHECK(loaded.diagnostics[0].where.line == 2);
  CHECK(loaded.diagnostics[1].where.line == 3);
  CHECK(loaded.diagnostics[1].help == "did you mean `seed`?");
  CHECK(loaded.diagnostics[3].where.column == 2);
}

TEST_CASE("values are read in the units that people write") {
  Workplace w;
  auto text = std::string(kSmall);
  text.replace(text.find("steps = 5"), 9, "steps = 5\npatience = \"1h30m\"\nbuffer = \"1.5MiB\"\nlearning_rate = 1");
  const auto loaded = w.load_text(text);
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  CHECK(loaded.spec.trainer.params.find("patience")->raw().real == 5400);
  CHECK(loaded.spec.trainer.params.find("buffer")->raw().integer == 3 << 19);
  CHECK(loaded.spec.trainer.params.find("learning_rate")->raw().real == 1.0);
}

TEST_CASE("sizes and durations that make no sense are refused with a reason") {
  CHECK(parse_bytes("64MiB").value() == 64 << 20);
  CHECK(parse_bytes("1.5 GB").value() == 1500000000);
  CHECK(parse_bytes("9EiB").error().find("unit") != std::string::npos);
  CHECK(parse_bytes("9000000TiB").error() == "is more than 8 EiB");
  CHECK(parse_bytes("0.3B").error() == "is no whole number of bytes");
  CHECK_FALSE(parse_bytes(""));
  CHECK_FALSE(parse_bytes("-5"));
  CHECK(parse_duration("200ms").value() == Approx(0.2));
  CHECK(parse_duration("45").value() == 45);
  CHECK_FALSE(parse_duration("1h30"));
  CHECK_FALSE(parse_duration("soon"));
}

TEST_CASE("the including file wins over what it includes, key by key") {
  Workplace w;
  w.write("parts/base.toml", "[run]\nseed = 1\nrounds = 7\n[model]\nuse = \"tiny\"\npath = \"../base\"\n");
  auto text = std::string(kSmall);
  text.erase(0, text.find("[adapter]"));
  const auto loaded = w.load_text("include = \"parts/base.toml\"\n[run]\nseed = 9\n" + text);
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  CHECK(loaded.spec.run.seed == 9);
  CHECK(loaded.spec.run.rounds == 7);
  CHECK(loaded.spec.model_host.path == w.at("base"));
}

TEST_CASE("an include may not leave the config root by dots or by a link, nor go in circles") {
  Workplace w;
  const auto other = TemporaryDirectory();
  std::ofstream(other.path() / "x.toml") << "[run]\nseed = 5\n";
  fs::create_symlink(other.path() / "x.toml", w.at("link.toml"));
  w.write("ring.toml", "include = \"p.toml\"\n");
  const auto loaded =
      w.load_text("include = [\"../x.toml\", \"link.toml\", \"ring.toml\", \"none.toml\", 3]\n" + std::string(kSmall));
  CHECK(loaded.diagnostics.size() == 5);
  CHECK(says(loaded, "`../x.toml` lies outside the config root"));
  CHECK(says(loaded, "`link.toml` lies outside the config root"));
  CHECK(says(loaded, "`p.toml` includes itself"));
  CHECK(says(loaded, "cannot include `none.toml`: there is no such file"));
  CHECK(says(loaded, "`include` is an integer"));
}

TEST_CASE("overrides change values, make sections and reach into lists") {
  Workplace w;
  const auto loaded =
      w.load_text(std::string(kSmall) + "[[codec]]\nuse = \"round\"\n",
                  {"run.rounds=12", "run.name=trial", "codec.0.use=squeeze", "codec.1.use=\"round\"", "node.0.name=a",
                   "node.0.data=silos/a.txt", "network.listen=unix:/tmp/x.sock", "simulation={}"});
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  CHECK(loaded.spec.run.rounds == 12);
  CHECK(loaded.spec.run.name == "trial");
  REQUIRE(loaded.spec.codecs.size() == 2);
  CHECK(loaded.spec.codecs[0].use == "squeeze");
  CHECK(loaded.spec.nodes.at(0).data == w.at("silos/a.txt"));
  CHECK(loaded.spec.simulation.has_value());
}

TEST_CASE("a bad override is shown as it was typed") {
  Workplace w;
  const auto loaded =
      w.load_text(kSmall, {"run.rounds=many", "nonsense", "run.seed.x=1", "codec.3.use=round", "run.name=\"open"});
  CHECK(says(loaded, "--set run.rounds=many: error: `run.rounds` is a text, but must be a whole number"));
  CHECK(says(loaded, "--set nonsense: error: this is no `key=value`"));
  CHECK(says(loaded, "--set codec.3.use=round: error: asks for item `3` of a list that holds 0"));
  CHECK(says(loaded, "--set run.name=\"open: error: the value is no TOML"));
  CHECK(loaded.exit_code() == 1);
}

TEST_CASE("a file that cannot be read is exit code 2, a syntax error ends the reading") {
  Workplace w;
  const auto missing = load(w.at("none.toml"), {}, w.catalog);
  CHECK(missing.exit_code() == 2);
  CHECK(says(missing, "none.toml: error: cannot read this file: there is no such file"));
  CHECK(load(w.at("base"), {}, w.catalog).exit_code() == 2);
  const auto broken = w.load_text("[run\nrounds = 0\n");
  CHECK(broken.diagnostics.size() == 1);
  CHECK(broken.exit_code() == 1);
  CHECK(says(broken, "a syntax error ends the reading"));
}

TEST_CASE("the caret stands under the right character behind tabs and wide characters, in long lines too") {
  Diagnostic d;
  d.where = {"f.toml", 3, 6};
  d.width = 2;
  d.what = "no";
  d.source_line = "\t日本 = xx";
  d.where.column = 7;
  CHECK(render(d) == "f.toml:3:7: error: no\n    3 |     日本 = xx\n      |            ^^\n");
  d.source_line = std::string(300, 'a') + "b" + std::string(300, 'c');
  d.where.column = 301;
  d.width = 1;
  const auto text = render(d);
  const auto second = text.find('\n') + 1, third = text.find('\n', second) + 1;
  CHECK(third - second < 140);
  const auto shown = text.substr(second, third - second);
  // The cut mark takes three bytes and one column.
  CHECK(shown.find('b') - 2 == text.find('^', third) - third);
  d.source_line = "a\x1b[31m\xff";
  CHECK(render(d).find('\x1b') == std::string::npos);
}

TEST_CASE("[plugins] is read before there are plugins, and its keys lie where their file says") {
  Workplace w;
  const std::string digest = "sha256:" + std::string(64, '7');
  w.write("shared/keys.toml",
          "[plugins]\nrequire_signed = true\nkeys = [\"release.pub\", \"ed25519:abc\", \"/etc/x.pub\"]\n");
  const auto text = "include = \"shared/keys.toml\"\n[plugins]\ndigests = [\"" + digest + "\"]\n" + std::string(kSmall);
  std::vector<Diagnostic> problems;
  const auto early = read_pipeline(w.write("p.toml", text)).plugins(problems);
  CHECK(problems.empty());
  CHECK(early.require_signed);
  CHECK(early.keys == std::vector<std::string>{w.at("shared/release.pub").string(), "ed25519:abc", "/etc/x.pub"});
  CHECK(early.digests == std::vector{digest});
  const auto loaded = w.load_text(text), plain = w.load_text(kSmall);
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  CHECK(loaded.spec.plugins.keys == early.keys);

  // Who is trusted is each machine's own: no part of what they agree on, but of what a run goes on with.
  CHECK(canonical_json(loaded.spec) == canonical_json(plain.spec));
  CHECK_THAT(to_resolved_toml(loaded.spec), Catch::Contains("[plugins]\nrequire_signed = true\nkeys = [\"/"));
  CHECK_THAT(to_resolved_toml(plain.spec), !Catch::Contains("[plugins]"));
  const auto again = load(w.write("resolved.toml", to_resolved_toml(loaded.spec)), {}, w.catalog);
  CHECK(again.spec.plugins.keys == early.keys);
  CHECK(again.spec.plugins.digests == early.digests);
}

TEST_CASE("What is wrong with [plugins] is told without any plugin") {
  Workplace w;
  const auto problem = [&](const std::string& text) {
    std::vector<Diagnostic> problems;
    auto file = read_pipeline(w.write("p.toml", text));
    CHECK(!file.plugins(problems).require_signed == !text.ends_with("require_signed = true\n"));
    return render(unresolved(std::move(file), problems).diagnostics);
  };
  CHECK_THAT(
      problem("[plugins]\nrequire_signed = true\n"),
      Catch::Contains("p.toml:2:18: error: `plugins.require_signed` is true, but no key and no digest is listed"));
  CHECK_THAT(problem("[plugins]\nrequire_signd = true\n"),
             Catch::Contains("p.toml:2:1") && Catch::Contains("`require_signed`"));
  CHECK_THAT(problem("[plugins]\nrequire_signed = \"true\"\n"), Catch::Contains("remove the quotes"));
  CHECK_THAT(problem("[plugins]\nkeys = \"release.pub\"\n"), Catch::Contains("put it into brackets"));
  CHECK_THAT(problem("[plugins]\nkeys = [\"\"]\n"), Catch::Contains("plugins.keys.0"));
  CHECK_THAT(problem("[plugins]\ndigests = [\"sha256:12\"]\n"),
             Catch::Contains("p.toml:2:12") && Catch::Contains("is no digest"));
  CHECK_THAT(problem("plugins = [\"here\"]\n"), Catch::Contains("said by `plugin_path`"));
}

TEST_CASE("the resolved file loads to the same pipeline") {
  Workplace w;
  const auto first = w.load_text(
      std::string(kSmall) +
      "max_weight = 3\n[[codec]]\nuse = \"squeeze\"\n[privacy]\nuse = \"noise\"\nnoise = 0.1\nepsilon_budget = 8\n"
      "[[evaluation.set]]\nname = \"all\"\ndata = \"silos/a.txt\"\n[report]\nsample_prompt = \"a \\\"b\\\"\\n\"\n"
      "[[node]]\nname = \"b\"\ndata = \"silos/b.txt\"\n[[node]]\nname = \"a\"\ndata = \"silos/a.txt\"\nheldout = "
      "\"silos/b.txt\"\n");
  INFO(render(first.diagnostics));
  REQUIRE(first.ok());
  const auto text = to_resolved_toml(first.spec);
  const auto second = load(w.write("elsewhere/resolved.toml", text), {}, w.catalog);
  INFO(text);
  INFO(render(second.diagnostics));
  REQUIRE(second.ok());
  CHECK(to_resolved_toml(second.spec) == text);
  CHECK(pipeline_digest(second.spec) == pipeline_digest(first.spec));
  CHECK(second.spec.nodes.at(0).name == "a");
  CHECK(*second.spec.nodes.at(0).heldout == w.at("silos/b.txt"));
  CHECK(second.spec.weights.max_weight == 3.0);
  CHECK(second.spec.report.sample_prompt == "a \"b\"\n");
}

TEST_CASE("nodes make the same pipeline from its canonical form, which names no path and no node") {
  Workplace w;
  const auto loaded = w.load_text(std::string(kSmall) + "[[node]]\nname = \"a\"\ndata = \"silos/a.txt\"\n");
  REQUIRE(loaded.ok());
  const auto json = canonical_json(loaded.spec);
  CHECK(json.find(w.directory.path().string()) == std::string::npos);
  CHECK(json.find("\"a\"") == std::string::npos);
  const auto there = spec_from_canonical(json, w.catalog);
  CHECK(canonical_json(there) == json);
  CHECK(there.trainer.params.find("steps")->raw().integer == 5);
  CHECK(there.train.threads == loaded.spec.train.threads);

  FakeCatalog node_side;  // lacks what runs at the coordinator only, and the adapter
  node_side.add("model", "tiny");
  node_side.add("data_source", "lines");
  node_side.add("evaluator", "loss");
  REQUIRE_THROWS_WITH(spec_from_canonical(json, node_side),
                      Catch::Contains("there is no adapter `pairs`") && !Catch::Contains("aggregator"));
  REQUIRE_THROWS_AS(spec_from_canonical("[1", w.catalog), Error);
  REQUIRE_THROWS_AS(spec_from_canonical(std::string(5000, '[') + std::string(5000, ']'), w.catalog), Error);
}

TEST_CASE("devices are each machine's own: no part of what they agree on, but of what a run goes on with") {
  Workplace w;
  const auto nodes = std::string(kSmall) + "[[node]]\nname = \"a\"\ndata = \"silos/a.txt\"\n";
  const auto plain = w.load_text(nodes);
  const auto loaded = w.load_text(nodes + "device = \"cuda:1\"\n", {"model.device=cpu"});
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  CHECK(plain.spec.model_host.device == "auto");
  CHECK(plain.spec.nodes.at(0).device.empty());
  CHECK(loaded.spec.model_host.device == "cpu");
  CHECK(loaded.spec.nodes.at(0).device == "cuda:1");
  CHECK(canonical_json(loaded.spec) == canonical_json(plain.spec));
  const auto again = load(w.write("resolved.toml", to_resolved_toml(loaded.spec)), {}, w.catalog);
  CHECK(again.spec.model_host.device == "cpu");
  CHECK(again.spec.nodes.at(0).device == "cuda:1");
}

TEST_CASE("what is computed in is bf16 where the base is quantised, f32 elsewhere, and stated") {
  Workplace w;
  const auto plain = w.load_text(kSmall), small = w.load_text(kSmall, {"model.base_dtype=nf4"}),
             told = w.load_text(kSmall, {"model.base_dtype=nf4", "model.compute=f32"});
  CHECK(plain.spec.model_host.compute == "f32");
  CHECK(small.spec.model_host.compute == "bf16");
  CHECK(told.spec.model_host.compute == "f32");
  const auto stated = std::ranges::find(small.settings, "model.compute", &Setting::key);
  REQUIRE(stated != small.settings.end());
  CHECK(stated->value == "\"bf16\"");
}

TEST_CASE("secrets are neither shown nor stored") {
  Workplace w;
  const auto loaded = w.load_text(kSmall, {"trainer.token=hush"});
  REQUIRE(loaded.ok());
  CHECK(text_of(*find(loaded.spec.trainer.params.raw(), "token")) == "hush");
  CHECK(to_resolved_toml(loaded.spec).find("hush") == std::string::npos);
  CHECK(canonical_json(loaded.spec).find("hush") == std::string::npos);
  for (const auto& setting : loaded.settings) CHECK(setting.value.find("hush") == std::string::npos);
}

TEST_CASE("a directory of silos becomes one node each, in the order of their names") {
  Workplace w;
  const auto loaded = w.load_text(std::string(kSmall) + "[simulation]\nnodes_from = \"silos\"\n");
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  REQUIRE(loaded.spec.nodes.size() == 2);
  CHECK(loaded.spec.nodes[0].name == "a");
  CHECK(loaded.spec.train.threads == 1);
  const auto again = load(w.write("r.toml", to_resolved_toml(loaded.spec)), {}, w.catalog);
  CHECK(again.spec.nodes.size() == 2);
  w.write("silos/a.md", "x");
  CHECK(
      says(w.load_text(std::string(kSmall) + "[simulation]\nnodes_from = \"silos\"\n"), "would both be the node `a`"));
}

TEST_CASE("settings say where each value comes from") {
  Workplace w;
  const auto loaded = w.load_text(kSmall, {"run.rounds=3"});
  const auto setting = [&](const std::string& key) {
    for (const auto& s : loaded.settings)
      if (s.key == key) return s;
    return Setting{};
  };
  CHECK(setting("trainer.steps").where.line == 9);
  CHECK(setting("trainer.schedule").value == "\"cosine\"");
  CHECK(setting("trainer.schedule").where.file.empty());
  CHECK(setting("run.rounds").where.file == "--set run.rounds=3");
}

TEST_CASE("an inner component is checked like an outer one") {
  Workplace w;
  auto text = std::string(kSmall);
  text.replace(text.find("use = \"mean\""), 12, "use = \"wrapper\"\ninner = { use = \"meen\" }");
  CHECK(says(w.load_text(text), "there is no aggregator `meen`"));
  text.replace(text.find("meen"), 4, "mean");
  const auto loaded = w.load_text(text);
  INFO(render(loaded.diagnostics));
  REQUIRE(loaded.ok());
  CHECK(text_of(loaded.spec.aggregator.params.find("inner")->raw()) == "mean");
  const auto again = load(w.write("r.toml", to_resolved_toml(loaded.spec)), {}, w.catalog);
  INFO(render(again.diagnostics));
  CHECK(again.ok());
}

TEST_CASE("an inner component's own check points at its parameter, and its traits reach the outer one") {
  Workplace w;
  const auto with = [&](const std::string& inner) {
    auto text = std::string(kSmall);
    return w.load_text(text.replace(text.find("use = \"mean\""), 12, "use = \"wrapper\"\ninner = " + inner));
  };
  const auto deep = with("{ use = \"wrapper\", depth = 13, inner = { use = \"mean\" } }");
  REQUIRE(deep.diagnostics.size() == 1);
  CHECK(says(deep, "`aggregator.inner.depth`: 13 brings bad luck"));
  CHECK(deep.diagnostics[0].where.column == 36);
  CHECK(says(with("{ use = \"gossip\" }"), "`aggregator.inner`: tells too much"));
  CHECK(says(with("{ use = \"wrapper\", inner = { use = \"gossip\" } }"), "`aggregator.inner.inner`: tells too much"));
  CHECK(says(with("{ use = \"wrapper\" }"), "`aggregator.inner.inner` is missing"));
  CHECK(says(with("{ use = \"mean\", depth = 1 }"), "unknown key `depth`"));
  const auto twice = with("{ use = \"wrapper\", inner = { use = \"mean\" } }");
  INFO(render(twice.diagnostics));
  REQUIRE(twice.ok());
  CHECK(twice.spec.aggregator.traits.flags == HANSA_TRAIT_ORDER_FREE);
  CHECK((with("{ use = \"middle\" }").spec.aggregator.traits.flags & HANSA_TRAIT_ORDER_FREE) == 0);
}

TEST_CASE("random bytes never crash the loader") {
  Workplace w;
  std::uint64_t state = 88172645463325252ull;
  const std::string alphabet = "[]{}=\"'.,#\n\t ab1-_\\\xc3\xa9\xff\x00";
  for (int i = 0; i < 300; ++i) {
    std::string text = i % 2 ? kSmall : "";
    for (int n = 0; n < 40; ++n) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      text.insert(state / 64 % (text.size() + 1), 1, alphabet[state % alphabet.size()]);
    }
    const auto loaded = w.load_text(text);
    CHECK(render(loaded.diagnostics).size() < 100000);
    CHECK(render_json(loaded.diagnostics).size() > 10);
  }
}

}  // namespace hansa::config
