// What must hold for every causal language model, as functions that the models' tests call with small configs.
#pragma once
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include <hansa/model.hpp>

namespace hansa::model_checks {

struct Subject {
  std::function<std::shared_ptr<Model>()> make;
  std::filesystem::path directory;  // holds config.json
};

void write_text(const std::filesystem::path&, const std::string&);
Batch one_segment_batch(std::int64_t rows, std::int64_t length, std::int64_t vocabulary, std::uint64_t seed);
// A pair with random A and B for every linear module, fp32, requiring gradients.
std::vector<Injection> random_pairs(std::span<const Module>, std::int64_t rank, double dropout, std::uint64_t seed);

void same_seed_same_weights(const Subject&);
void cached_equals_uncached(const Subject&);
void packed_documents_are_apart(const Subject&);
void merged_checkpoint_computes_the_same(const Subject&);
void gradients_equal_finite_differences(const Subject&);
void two_runs_are_bit_equal(const Subject&);
void stays_on_its_device(const Subject&);
void memory_stays(const Subject&);
void bf16_is_near_fp32(const Subject&);
void wrong_files_are_refused(const Subject&);
void wrong_batches_are_refused(const Subject&);

}  // namespace hansa::model_checks
