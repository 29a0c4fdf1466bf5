#include "base/value_json.hpp"

#include "base/error.hpp"
#include "test.hpp"

using namespace hansa;

TEST_CASE("Equal values have one canonical JSON text, whatever the order of keys") {
  const auto a = Value::table({{"b", Value::integer(1)}, {"a", Value::real(0.1)}});
  const auto b = Value::table({{"a", Value::real(0.1)}, {"b", Value::integer(1)}});
  CHECK(to_json(a) == R"({"a":0.1,"b":1})");
  CHECK(to_json(a) == to_json(b));
}

TEST_CASE("A tree of all types survives JSON with its bits, in JSON's own types") {
  const auto tree = Value::table({{"flag", Value::boolean(true)},
                                  {"whole", Value::integer(INT64_MIN)},
                                  {"one", Value::real(1)},
                                  {"tiny", Value::real(5e-324)},
                                  {"text", Value::text("a\"\n\xC3\xA9")},
                                  {"size", Value::bytes(1 << 20)},
                                  {"list", Value::list({Value::path("/x"), Value::choice("y")})},
                                  {"inner", Value::component("krum", {{"f", Value::integer(2)}})}});
  const auto text = to_json(tree);
  const auto back = value_from_json(text);
  CHECK(to_json(back) == text);
  CHECK(back.find("one")->type() == HANSA_REAL);
  CHECK(back.find("tiny")->raw().real == 5e-324);
  CHECK(back.find("size")->raw().integer == 1 << 20);
  CHECK(back.find("inner")->type() == HANSA_COMPONENT);
  CHECK(text_of(*back.find("inner")) == "krum");
}

TEST_CASE("JSON that holds no value is refused") {
  CHECK_THROWS_AS(value_from_json("{"), Error);
  CHECK_THROWS_AS(value_from_json("null"), Error);
  CHECK_THROWS_AS(value_from_json("18446744073709551615"), Error);
  CHECK_THROWS_AS(value_from_json(std::string(1'000'000, '[')), Error);
  CHECK_THROWS_AS(value_from_json(std::string(200, '[') + std::string(200, ']')), Error);
  CHECK_THROWS_AS(to_json(Value::text("\xFF")), Error);
  CHECK_THROWS_AS(to_json(Value::real(1.0 / 0.0)), Error);
}
