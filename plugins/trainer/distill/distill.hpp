// Trainer `distill`: learns from the labels and from a teacher's logits (arXiv 1503.02531). The teacher is another checkpoint,
// opened through a model plugin when the first round begins, or the model as the round began with it. The SDK's loop with
// another objective. Training thread only; fails as the loop does, and where the vocabularies differ.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>

#include <hansa/schema.hpp>
#include <train/loop.hpp>

#include "loss.hpp"

namespace hansa::distill {

enum class From : std::uint8_t { Teacher, RoundStart };
enum class Compute : std::uint8_t { F32, Bf16 };

struct Params : train::Params {
  From from = From::Teacher;
  std::optional<ComponentChoice> teacher;
  std::optional<std::filesystem::path> teacher_path, student_path;
  Compute teacher_compute = Compute::F32;
  double temperature = 2, weight = 0.5;
};

class Distill final : public Stateless<Trainer> {
 public:
  Distill(Params params, Host& host);
  std::uint64_t steps(std::uint64_t examples) const override { return train::steps_of(params_, examples); }
  std::vector<std::string> remarks(const Layout&) const override;
  bool shares_batches() const override { return true; }
  TrainResult train(Model&, Adapter&, DataSource&, const TrainContext&) override;

 private:
  void open_teacher(const Model& student, at::Device);
  Params params_;
  Host& host_;
  std::shared_ptr<Model> teacher_;
  bool open_ = false;
};

// Throws Error naming the first token that two checkpoints' tokenizers write differently.
void require_same_tokens(const std::filesystem::path& teacher, const std::filesystem::path& student);

}  // namespace hansa::distill
