#include <hansa/schema.hpp>

#include "test.hpp"

using namespace hansa;

namespace {

enum class Rounding { Nearest, Stochastic };
struct Inner {
  double rate = 0.5;
  std::string name;
};
struct Params {
  bool on = true;
  std::int64_t rounds = 10;
  std::uint16_t small = 3;
  double floor = 0.25;
  std::string label = "x";
  std::string mode = "fast";
  Rounding rounding = Rounding::Stochastic;
  ByteSize chunk = MiB(4);
  Seconds limit{1.5};
  std::filesystem::path where = "here";
  std::vector<std::string> targets = {"q", "v"};
  std::vector<std::int64_t> ranks;
  std::optional<double> cap;
  Inner inner;
  std::vector<Inner> many;
  ComponentChoice rule;
};

Schema<Inner> inner_schema() {
  Schema<Inner> schema;
  schema.param(&Inner::rate, "rate", "A rate.", more_than(0), at_most(1)).param(&Inner::name, "name", "A name.");
  return schema;
}
Schema<Params> schema() {
  Schema<Params> s;
  s.param(&Params::on, "on", "Switch.")
      .param(&Params::rounds, "rounds", "Rounds.", range(1, 100), "rounds")
      .param(&Params::small, "small", "A small number.")
      .param(&Params::floor, "floor", "Floor.", range(0, 1), unit("fraction"))
      .param(&Params::label, "label", "Label.", range(1, 8))
      .param(&Params::mode, "mode", "Mode.", choices({"fast", "good"}))
      .param(&Params::rounding, "rounding", "Rounding.", choices({"nearest", "stochastic"}))
      .param(&Params::chunk, "chunk", "Chunk.", at_least(1024))
      .param(&Params::limit, "limit", "Limit.")
      .param(&Params::where, "where", "Where.")
      .param(&Params::targets, "targets", "Targets.", list_of(range(1, 3)), at_least(1))
      .param(&Params::ranks, "ranks", "Ranks.", list_of(range(1, 64)))
      .param(&Params::cap, "cap", "Cap.", more_than(0))
      .param(&Params::inner, "inner", "Inner.", table(inner_schema()))
      .param(&Params::many, "many", "Many.", list_of(table(inner_schema())))
      .param(&Params::rule, "rule", "Rule.", of_kind("aggregator"));
  return s;
}
Value with_rule(std::vector<std::pair<std::string, Value>> entries) {
  entries.emplace_back("rule", Value::component("krum", {{"f", Value::integer(2)}}));
  return Value::table(std::move(entries));
}
std::string refusal(std::vector<std::pair<std::string, Value>> entries) {
  try {
    schema().read(with_rule(std::move(entries)));
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("Defaults of a schema are the member initialisers") {
  const auto s = schema();
  CHECK(s.find("rounds")->default_value->integer == 10);
  CHECK(s.find("chunk")->default_value->integer == 4 << 20);
  CHECK(s.find("limit")->default_value->real == 1.5);
  CHECK(text_of(*s.find("rounding")->default_value) == "stochastic");
  CHECK(s.find("targets")->default_value->count == 2);
  CHECK(s.find("inner")->default_value->count == 2);
  CHECK(s.find("cap")->default_value == nullptr);
  CHECK((s.find("rule")->flags & HANSA_PARAM_REQUIRED) != 0);  // a component without a name is no default
  CHECK(s.find("small")->maximum == 65535);
  CHECK(std::string(s.find("floor")->unit) == "fraction");
}

TEST_CASE("Reading fills the struct, and absent keys keep their defaults") {
  const auto p = schema().read(with_rule({{"rounds", Value::integer(7)},
                                          {"floor", Value::integer(1)},  // an integer is a number too
                                          {"rounding", Value::choice("nearest")},
                                          {"mode", Value::text("good")},  // plain text from JSON
                                          {"chunk", Value::bytes(2048)},
                                          {"cap", Value::real(3)},
                                          {"ranks", Value::list({Value::integer(4), Value::integer(8)})},
                                          {"inner", Value::table({{"rate", Value::real(0.125)}})},
                                          {"many", Value::list({Value::table({{"name", Value::text("n")}})})}}));
  CHECK(p.rounds == 7);
  CHECK(p.floor == 1);
  CHECK(p.rounding == Rounding::Nearest);
  CHECK(p.mode == "good");
  CHECK(p.chunk.value == 2048);
  CHECK(p.cap == 3.0);
  CHECK(p.ranks == std::vector<std::int64_t>{4, 8});
  CHECK(p.inner.rate == 0.125);
  CHECK(p.many.at(0).name == "n");
  CHECK(p.many.at(0).rate == 0.5);
  CHECK(p.on);
  CHECK(p.rule.name == "krum");
  CHECK(p.rule.params.find("f")->raw().integer == 2);
}

TEST_CASE("Each wrong value is refused with a sentence") {
  CHECK(refusal({}) == "accepted");
  CHECK(refusal({{"nonsense", Value::integer(1)}}) == "unknown parameter 'nonsense'");
  CHECK(refusal({{"rounds", Value::integer(0)}}) == "parameter 'rounds' is 0, but must be 1 to 100");
  CHECK(refusal({{"rounds", Value::real(2.5)}}) == "parameter 'rounds' is a number, but must be an integer");
  CHECK(refusal({{"small", Value::integer(70000)}}) == "parameter 'small' is 70000, but must be 0 to 65535");
  CHECK(refusal({{"floor", Value::real(std::numeric_limits<double>::quiet_NaN())}}) ==
        "parameter 'floor' must be a finite number");
  CHECK(refusal({{"mode", Value::text("slow")}}) == "parameter 'mode' is \"slow\", but must be \"fast\" or \"good\"");
  CHECK(refusal({{"label", Value::text("")}}) == "parameter 'label' has length 0, but its length must be 1 to 8");
  CHECK(refusal({{"ranks", Value::list({Value::integer(4), Value::integer(65)})}}) ==
        "parameter 'ranks' element 2 is 65, but must be 1 to 64");
  CHECK(refusal({{"cap", Value::real(0)}}) == "parameter 'cap' is 0, but must be more than 0");
  CHECK(refusal({{"inner", Value::table({{"rate", Value::real(0)}})}}) ==
        "parameter 'inner' field 'rate' is 0, but must be more than 0 and at most 1");
  CHECK(refusal({{"inner", Value::table({{"rat", Value::real(1)}})}}) == "parameter 'inner' has no field 'rat'");
  CHECK_THROWS_WITH(schema().read(Value::table()), "parameter 'rule' is required");
}

TEST_CASE("Writing and reading a struct gives the same values") {
  auto p = schema().read(with_rule({}));
  p.cap = 2.5;
  p.many.push_back({0.75, "seven"});
  const auto written = schema().write(p);
  CHECK(equal(schema().write(schema().read(written)), written));
}

TEST_CASE("Wrong declarations are refused when they are made") {
  struct Odd {
    double high = 2;
    Rounding mode = Rounding::Nearest;
    Inner inner;
    ComponentChoice rule;
  };
  Schema<Odd> s;
  CHECK_THROWS_WITH(s.param(&Odd::high, "high", "", range(0, 1)),
                    "parameter 'high' has a default that is 2, but must be 0 to 1");
  CHECK_THROWS_WITH(s.param(&Odd::mode, "mode", ""), Catch::Contains("give choices"));
  CHECK_THROWS_WITH(s.param(&Odd::inner, "inner", ""), Catch::Contains("table(Schema<"));
  CHECK_THROWS_WITH(s.param(&Odd::rule, "rule", ""), Catch::Contains("of_kind"));
  CHECK_THROWS_WITH(s.param(&Odd::high, "high", "", choices({"a"})), Catch::Contains("neither a text nor an enum"));
  s.param(&Odd::high, "high", "");
  CHECK_THROWS_WITH(s.param(&Odd::high, "high", ""), "parameter 'high' is declared twice");
}

TEST_CASE("A value's C view survives moves, copies and changes of its parts") {
  auto table = Value::table({{"a", Value::text("one")}, {"b", Value::list({Value::integer(1)})}});
  const auto* raw = &table.raw();
  const auto copy = table;
  auto moved = std::move(table);
  CHECK(&moved.raw() == raw);
  *moved.find("a") = Value::text("a much longer text than fits into a small string");
  moved.find("b")->push_back(Value::integer(2));
  for (int i = 0; i < 20; ++i) moved.set("key" + std::to_string(i), Value::integer(i));
  CHECK(text_of(*find(moved, "a")) == "a much longer text than fits into a small string");
  CHECK(find(moved, "b")->count == 2);
  CHECK(find(moved, "key19")->integer == 19);
  CHECK(text_of(*find(copy, "a")) == "one");
  CHECK(moved.erase("key3"));
  CHECK(find(moved, "key3") == nullptr);
  CHECK(equal(Value::copy(moved), moved));
  CHECK_FALSE(equal(moved, copy));
  CHECK_THROWS_AS(Value::integer(1).set("x", Value()), std::logic_error);
}
