// The host's own sections of a pipeline file, declared once like a plugin's parameters. Inside config/ only; immutable.
#pragma once
#include <hansa/schema.hpp>

#include "config/run_spec.hpp"

namespace hansa::config {

struct Sections {
  Schema<PluginsSection> plugins;
  Schema<RunSection> run;
  Schema<ModelSection> model;  // beside the plugin's parameters in [model]
  Schema<TrainSection> train;
  Schema<FeedbackSection> error_feedback;
  Schema<WeightSection> weights;         // in [aggregator]
  Schema<PrivacySection> privacy;        // in [privacy]
  Schema<EvaluationSection> evaluation;  // without `set`
  Schema<EvaluationSection::Set> evaluation_set;
  Schema<NetworkSection> network;
  Schema<SimulationSection> simulation;
  Schema<ReportSection> report;
  Schema<NodeSpec> node;
};
Sections make_sections();

}  // namespace hansa::config
