// quantised_tool IN OUT: quantises the fp32 matrix `weight` of a safetensors file to NF4 and to 8 bits, and writes what is held
// and what comes back, for test_quantised.py.
#include <iostream>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <hf/safetensors.hpp>
#include <hf/tensors.hpp>
#include <quantised/int8.hpp>
#include <quantised/nf4.hpp>

int main(int count, char** words) try {
  using namespace hansa;
  if (count != 3) throw Error("usage: quantised_tool IN OUT");
  const hf::SafetensorsFile file(words[1]);
  const auto* stored = file.find("weight");
  if (!stored) throw Error("no tensor 'weight'");
  const auto weight = hf::load_tensor(*stored, DType::f32);
  const auto nf4 = quantised::to_nf4(weight);
  const auto int8 = quantised::to_int8(weight);
  std::vector<std::pair<std::string, at::Tensor>> all{
      {"nf4.codes", nf4.codes},   {"nf4.scales", nf4.scales},
      {"nf4.spans", nf4.spans},   {"nf4.offset", at::full({1}, nf4.offset, at::kFloat)},
      {"int8.codes", int8.codes}, {"int8.largest", int8.largest}};
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const std::string end = type == at::kFloat ? ".f32" : ".bf16";
    auto four = at::zeros(weight.sizes(), type), eight = at::zeros(weight.sizes(), type);
    dequantise(nf4, four);
    dequantise(int8, eight);
    all.emplace_back("nf4" + end, four);
    all.emplace_back("int8" + end, eight);
  }
  hf::save_tensors(words[2], all);
  return 0;
} catch (const std::exception& problem) {
  std::cerr << problem.what() << '\n';
  return 1;
}
