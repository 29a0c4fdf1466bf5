#include "hf/json_config.hpp"

#include "base/file.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::hf;
using Catch::Matchers::Contains;

namespace {

JsonConfig config_of(std::string_view text) { return JsonConfig::parse(text, "config.json", "llama"); }

}  // namespace

TEST_CASE("values of a config have their types, and null is the same as absent") {
  auto config =
      config_of(R"({"n": 3, "x": 2, "eps": 1e-5, "on": true, "name": "a", "none": null, "ids": [1, 2], "id": 4})");
  CHECK(config.required_integer("n") == 3);
  CHECK(config.required_real("x") == 2.0);
  CHECK(config.real("eps", 1) == 1e-5);
  CHECK(config.flag("on", false));
  CHECK(config.required_text("name") == "a");
  CHECK_FALSE(config.integer("none"));
  CHECK_FALSE(config.integer("absent"));
  CHECK(config.integer("none", 9) == 9);
  CHECK(*config.integers("ids") == std::vector<std::int64_t>{1, 2});
  CHECK(*config.integers("id") == std::vector<std::int64_t>{4});
  CHECK_NOTHROW(config.finish());
}

TEST_CASE("a config value of another type or out of range is refused with its key and value") {
  auto config = config_of(R"({"n": 1.5, "zero": 0, "text": 3, "flag": 1, "big": 18446744073709551615})");
  CHECK_THROWS_WITH(config.integer("n"), Contains("n = 1.5 is not a whole number"));
  CHECK_THROWS_WITH(config.positive("zero"), Contains("zero = 0, but has to be at least 1"));
  CHECK_THROWS_WITH(config.positive("absent"), Contains("absent is missing; llama needs it"));
  CHECK_THROWS_WITH(config.required_text("text"), Contains("text = 3 is not a text"));
  CHECK_THROWS_WITH(config.flag("flag"), Contains("not true or false"));
  CHECK_THROWS_WITH(config.integer("big"), Contains("not a whole number"));
  CHECK_THROWS_WITH(config.object("text"), Contains("not an object"));
}

TEST_CASE("a value that a model lacks is refused by name with what it has") {
  auto config = config_of(R"({"hidden_act": "gelu_new", "mlp_bias": true})");
  CHECK_THROWS_WITH(config.choice("hidden_act", "silu", {"silu"}),
                    Contains("config.json: hidden_act = \"gelu_new\" is not supported by llama; supported: silu"));
  CHECK(config.choice("other_act", "silu", {"silu"}) == "silu");
  CHECK_THROWS_WITH(config.only("mlp_bias", {"false"}),
                    Contains("mlp_bias = true is not supported by llama; supported: false"));
  CHECK_NOTHROW(config.only("absent", {"false"}));
}

TEST_CASE("keys that nobody honours are all named at the end, inner ones too") {
  auto config = config_of(R"({"a": 1, "rope_scaling": {"rope_type": "llama3", "twist": 2}, "mystery": [1], "gone": null,
                              "vocab_size": 5, "transformers_version": "4", "pretraining_tp": 1, "temperature": 0.5})");
  CHECK(config.integer("a", 0) == 1);
  auto* scaling = config.object("rope_scaling");
  REQUIRE(scaling != nullptr);
  CHECK(scaling->required_text("rope_type") == "llama3");
  CHECK(config.object("rope_scaling") == scaling);
  CHECK(config.object("absent") == nullptr);
  config.inert({{"pretraining_tp", "how it was trained"}});
  CHECK_THROWS_WITH(config.finish(), Contains("not supported by llama") && Contains("mystery = [1]") &&
                                         Contains("rope_scaling.twist = 2") && Contains("vocab_size = 5") &&
                                         !Contains("temperature") && !Contains("pretraining_tp"));
}

TEST_CASE("a quantised checkpoint or one with cross attention is not taken for a plain one") {
  CHECK_THROWS_WITH(config_of(R"({"quantization_config": {"bits": 4}})").finish(), Contains("quantization_config"));
  CHECK_THROWS_WITH(config_of(R"({"add_cross_attention": true})").finish(), Contains("add_cross_attention"));
  CHECK_NOTHROW(config_of(R"({"add_cross_attention": false, "pruned_heads": {}, "is_decoder": false})").finish());
}

TEST_CASE("a config that is no JSON object or names a key twice is refused") {
  CHECK_THROWS_WITH(config_of("{"), Contains("config.json is not valid JSON"));
  CHECK_THROWS_WITH(config_of("[]"), Contains("not a JSON object"));
  CHECK_THROWS_WITH(config_of(R"({"a": 1, "a": 2})"), Contains("\"a\" occurs twice"));
  const TemporaryDirectory directory;
  CHECK_THROWS_WITH(JsonConfig::read(directory.path(), "llama"), Contains("config.json"));
  CHECK(model_type_of(directory.path()).empty());
  write_file_atomically(directory.path() / "config.json", R"({"model_type": "gpt2"})", Durability::Process);
  CHECK(model_type_of(directory.path()) == "gpt2");
}
