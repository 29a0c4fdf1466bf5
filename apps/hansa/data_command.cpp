#include "data_command.hpp"

#include <CLI/CLI.hpp>

#include "trust_options.hpp"

namespace hansa {

DataCommand::DataCommand(CLI::App& program) {
  auto* group = program.add_subcommand("data", "Look at silos, deal a collection to nodes, render conversations");
  group->require_subcommand(1);

  auto* inspect = group->add_subcommand("inspect", "Sizes, lengths and skew of silos");
  inspect
      ->add_option("paths", inspect_.paths,
                   "A pipeline file, whose silos are read as it would; or silos: files or folders")
      ->required()
      ->check(CLI::ExistingPath);
  inspect->add_option("--field", inspect_.field, "JSON lines: the field whose values are labels, for their skew");
  inspect->add_option("--separator", inspect_.separator, "Plain text: a line equal to this ends a document")
      ->capture_default_str();
  inspect->add_option("--plot", inspect_.plot, "Also draw sizes, lengths and skew into this SVG file (needs gnuplot)");
  inspect->add_flag("--json", inspect_.json, "One JSON object instead of text");
  inspect->add_option("--set", inspect_.pipeline.set, "Override a value of the pipeline: a.b=c (repeatable)")
      ->allow_extra_args(false);
  inspect->add_option("--plugin-path", inspect_.pipeline.plugin_path, "Folder or file with plugins (repeatable)")
      ->allow_extra_args(false);
  add_trust_options(*inspect, inspect_.pipeline.trust);
  inspect->footer("Example: hansa data inspect configs/quickstart.toml --plot silos.svg");

  auto* partition = group->add_subcommand("partition", "Deal the records of a collection to the silos of a study");
  partition->add_option("input", partition_.input, "A .txt or .jsonl file, or a folder of them")
      ->required()
      ->check(CLI::ExistingPath);
  partition
      ->add_option(
          "--by", partition_.by,
          "even: at random; dirichlet: skewed by --field; quantity: skewed sizes; field: a node for each value of "
          "--field; shards: a few slices each of the records sorted by --field")
      ->required()
      ->check(CLI::IsMember({"even", "iid", "dirichlet", "quantity", "field", "shards"}));
  partition->add_option("--nodes", partition_.nodes, "How many nodes (by field: left out, one for each value)")
      ->check(CLI::PositiveNumber);
  partition->add_option("--out", partition_.out, "A new folder: silos/, heldout/, manifest.json")->required();
  partition->add_option("--seed", partition_.seed, "The same seed gives the same silos")->capture_default_str();
  partition->add_option("--field", partition_.field, "JSON lines: the field that is a record's label or user");
  partition->add_option("--alpha", partition_.alpha, "Dirichlet's concentration: 0.1 is very skewed, 100 nearly even")
      ->capture_default_str();
  partition->add_option("--shards", partition_.shards, "Slices of each node")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  partition->add_option("--least", partition_.least, "Draw again until each node has at least this many records")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  partition->add_option("--heldout", partition_.heldout, "This part of each node's records goes into heldout/")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  partition->add_option("--separator", partition_.separator, "Plain text: a line equal to this ends a document")
      ->capture_default_str();
  partition->add_flag("--json", partition_.json, "Print the manifest");
  partition->footer(
      "Example: hansa data partition all.jsonl --by dirichlet --field topic --alpha 0.3 --nodes 8 --out study");

  auto* render = group->add_subcommand(
      "render", "Conversations in, one JSON list of messages a line; their text, ids and what of them is learnt out");
  render->add_option("--model", render_.model, "A directory with a tokenizer")
      ->required()
      ->check(CLI::ExistingDirectory);
  render->add_option("--template", render_.chat_template, "The chat template's name; auto: the checkpoint's own")
      ->capture_default_str();
  render->add_flag("--open", render_.open, "End where the assistant is to reply: a prompt");
  inspect_app_ = inspect;
  partition_app_ = partition;
  render_app_ = render;
}

bool DataCommand::chosen() const { return inspect_app_->parsed() || partition_app_->parsed() || render_app_->parsed(); }

int DataCommand::run(std::istream& in, std::ostream& out, std::ostream& err) const {
  if (inspect_app_->parsed()) return inspect_data(inspect_, out, err);
  if (partition_app_->parsed()) return partition_data(partition_, out);
  return render_conversations(render_, in, out);
}

}  // namespace hansa
