#include "distill.hpp"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <hf/tokenizer.hpp>
#include <train/as_at_start.hpp>
#include <train/declare.hpp>

#include "base/error.hpp"

namespace hansa::distill {

void require_same_tokens(const std::filesystem::path& teacher, const std::filesystem::path& student) {
  const bool theirs = hf::has_tokenizer(teacher), ours = hf::has_tokenizer(student);
  if (!theirs && !ours) return;  // ids are all there is
  if (theirs != ours)
    throw Error(
        fmt::format("distill: {} has a tokenizer and {} has none, so it cannot be said whether they mean the same "
                    "tokens; put the tokenizer's files beside the other checkpoint",
                    (theirs ? teacher : student).string(), (theirs ? student : teacher).string()));
  const hf::HfTokenizer a(teacher), b(student);
  for (std::int64_t id = 0; id < std::max(a.size(), b.size()); ++id) {
    const auto of_teacher = a.written(id), of_student = b.written(id);
    if (of_teacher == of_student) continue;
    throw Error(
        fmt::format("distill: token {} is '{}' in the teacher's vocabulary ({}) and '{}' in the student's ({}); a "
                    "teacher has to speak in "
                    "the student's tokens: choose one of the same family",
                    id, of_teacher, teacher.string(), of_student, student.string()));
  }
}

Distill::Distill(Params params, Host& host) : params_(std::move(params)), host_(host) {
  if (params_.from == From::Teacher) teacher_ = host_.inner<Model>(params_.teacher->params);
}

std::vector<std::string> Distill::remarks(const Layout&) const {
  if (params_.from != From::Teacher) return {};
  return {fmt::format("holds a second model, the teacher {}, in memory from its first round on",
                      params_.teacher_path->string())};
}

void Distill::open_teacher(const Model& student, at::Device device) {
  if (open_) return;
  const auto& path = *params_.teacher_path;
  if (!teacher_->accepts(path))
    throw Error(
        fmt::format("distill: the teacher {} is not a model of '{}'; set teacher = {{ use = \"…\" }} to what its "
                    "config.json says (model_type)",
                    path.string(), params_.teacher->name));
  require_same_tokens(path, *params_.student_path);
  teacher_->open(path,
                 {.device = device, .compute = params_.teacher_compute == Compute::Bf16 ? DType::bf16 : DType::f32});
  if (teacher_->vocabulary() != student.vocabulary())
    throw Error(
        fmt::format("distill: the teacher gives {} logits and the student {}; their checkpoints have to have the same "
                    "vocab_size",
                    teacher_->vocabulary(), student.vocabulary()));
  open_ = true;
}

TrainResult Distill::train(Model& model, Adapter& adapter, DataSource& data, const TrainContext& context) {
  const auto what = train::trained(adapter, context.exchange);
  std::vector<at::Tensor> start;
  if (params_.from == From::RoundStart)
    start = train::copies_of(what.parameters);
  else
    open_teacher(model, what.parameters.front().device());

  const auto taught = [&](const Batch& batch, train::Dropout& dropout) {
    const at::NoGradGuard no_grad;
    if (params_.from == From::Teacher) return teacher_->counted_logits(batch);
    const train::Dropout::Off off(dropout);
    const train::AsAtStart swapped(what.parameters, start);
    return model.counted_logits(batch);
  };
  const auto objective = [&](Model&, const Batch& batch, train::Dropout& dropout) -> train::Found {
    train::require_single_texts(batch);
    auto teacher = taught(batch, dropout);  // first: the student's graph must find the parameters as it used them
    const auto student = model.counted_logits(batch);
    teacher = teacher.to(student.device());
    if (teacher.sizes() != student.sizes())
      throw Error(fmt::format("distill: the teacher gives {} logits a label and the student {}", teacher.size(1),
                              student.size(1)));
    const auto flat = batch.labels.reshape({-1});
    const auto labels = flat.index_select(0, flat.ge(0).nonzero().squeeze(1)).to(student.device());
    const auto found = mixed_loss(student, teacher, labels, {params_.temperature, params_.weight});
    return {found.sum,
            static_cast<std::uint64_t>(student.size(0)),
            {{"hard_loss", found.hard}, {"divergence", found.soft}}};
  };
  return train::run(params_, host_, model, adapter, data, context, {}, objective);
}

}  // namespace hansa::distill

HANSA_PLUGIN(org_hansa_distill, "0.1.0") {
  using namespace hansa;
  using distill::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto component = plugin.add<distill::Distill, Params>(
      "distill", "Learns from a teacher's logits beside the labels (distillation).");
  train::declare(component)
      .param(&Params::from, "from", "Who teaches: another checkpoint, or the model as the round began with it.",
             choices({"teacher", "round_start"}))
      .param(&Params::teacher, "teacher", "The model plugin that opens the teacher, such as { use = \"llama\" }.",
             of_kind("model"))
      .param(&Params::teacher_path, "teacher_path",
             "The teacher's checkpoint: a directory, at this place on every node.", must_exist())
      .param(&Params::student_path, "student_path",
             "The pipeline's own checkpoint, as [model] path: its tokens are compared with the teacher's by name.",
             must_exist())
      .param(&Params::teacher_compute, "teacher_compute", "What the teacher computes in.", choices({"f32", "bf16"}))
      .param(&Params::temperature, "temperature", "Both sides' logits are divided by it before they are compared.",
             more_than(0))
      .param(&Params::weight, "weight", "Share of the teacher in the loss; the rest is the labels'.", range(0, 1),
             "fraction")
      .check([](const Params& p, Problems& problems) {
        const bool other = p.from == distill::From::Teacher;
        for (const auto& [name, given] : {std::pair<const char*, bool>{"teacher", p.teacher.has_value()},
                                          {"teacher_path", p.teacher_path.has_value()},
                                          {"student_path", p.student_path.has_value()}}) {
          if (other && !given)
            problems.add(name, "a teacher is asked for and this is not given",
                         "give it, or set from = \"round_start\" to learn from the round's own start");
          if (!other && given)
            problems.add(name, "the teacher is the model itself", "leave it out, or set from = \"teacher\"");
        }
      })
      .doc(
          "arXiv 1503.02531. Loss of a label: (1 - weight) times its nats plus weight T^2 KL(teacher || student) at "
          "temperature T. from = \"round_start\": self-distillation that holds a silo's model near what the federation "
          "sent, as local-global distillation does. Reported besides: hard_loss (nats of the labels) and divergence "
          "(the "
          "KL), per counted label. Logits of a batch are held in full, for both: make batch smaller and accumulation "
          "larger where memory is short.");
}
