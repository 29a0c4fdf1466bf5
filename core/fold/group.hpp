// What a rule sees of one group of the "adapter" channel, and where its results go until they are applied. Private to fold/;
// each object lives for one call of the rule. Misuse by the rule throws Error naming the tensor, which the
// guard of the rule's call turns into a PluginFailure; so take() is called under that guard too.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fold/log_file.hpp"
#include "fold/views.hpp"

namespace hansa::fold {

class GroupUpdates final : public Updates {
 public:
  GroupUpdates(const Group&, const std::deque<OpenView>&, const std::deque<OpenClient>&,
               const std::vector<std::string>& names);
  const Group& group() const override { return group_; }
  std::span<const std::string> views() const override { return names_; }
  const TensorSpec& tensor(std::size_t member, std::string_view view = {}) const override;
  double scale(std::string_view view) const override;
  std::size_t clients() const override { return clients_.size(); }
  const Contribution& who(std::size_t client) const override { return clients_[client].client.who; }
  at::Tensor delta(std::size_t client, std::size_t member) const override;
  at::Tensor value(std::size_t client, std::size_t member) const override;
  at::Tensor slice(std::size_t client, std::size_t member, std::int64_t first, std::int64_t count) const override;

 private:
  const OpenView& view_at(std::string_view name) const;
  const Group& group_;
  const std::deque<OpenView>& views_;
  const std::deque<OpenClient>& clients_;
  const std::vector<std::string>& names_;
};

// Takes a rule's results. Appended tensors go to the log at once; the others wait here for the group to be applied.
class GroupResults final : public Results {
 public:
  // `group` null: the rule's finish(), which may only append.
  GroupResults(const Group* group, const std::deque<OpenView>&, LogFile&);
  void put(std::size_t member, const at::Tensor& delta) override;
  void put_slice(std::size_t member, std::int64_t first, const at::Tensor& part) override;
  void put_for(std::string_view view, std::size_t member, const at::Tensor& value) override;
  void append(std::string_view channel, std::string_view tensor, const at::Tensor& value) override;

  at::Tensor take(std::size_t member);                       // the change, undefined when a value was put instead
  at::Tensor take_for(const OpenView&, std::size_t member);  // the value; throws when there is none

 private:
  const TensorSpec& spec(std::size_t member, const OpenView&) const;
  const Group* group_;
  const std::deque<OpenView>& views_;
  LogFile& log_;
  std::vector<at::Tensor> changes_;
  std::map<std::pair<const OpenView*, std::size_t>, at::Tensor> values_;
};

}  // namespace hansa::fold
