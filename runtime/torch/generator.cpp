#include "generator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GeneratorImpl.h>

#include <array>
#include <mutex>

namespace opennpu::torch_device {

namespace {

class DeviceGenerator final : public c10::GeneratorImpl {
 public:
  DeviceGenerator(DeviceIndex index, at::Generator host)
      : GeneratorImpl(c10::Device(kType, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host_(std::move(host)) {}

  const at::Generator& host() const { return host_; }

  void set_current_seed(uint64_t seed) override { host_.set_current_seed(seed); }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "opennpu: a Mersenne twister has no offset"); }
  uint64_t get_offset() const override { TORCH_CHECK(false, "opennpu: a Mersenne twister has no offset"); }
  uint64_t current_seed() const override { return host_.current_seed(); }
  uint64_t seed() override { return host_.seed(); }
  void set_state(const c10::TensorImpl& state) override { host_.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host_.unsafeGetGeneratorImpl()->get_state();
  }

 private:
  DeviceGenerator* clone_impl() const override { return new DeviceGenerator(device_.index(), host_.clone()); }

  at::Generator host_;
};

}  // namespace

const at::Generator& default_generator(DeviceIndex index) {
  static std::array<at::Generator, kMostDevices> generators;
  static std::array<std::once_flag, kMostDevices> made;
  if (index < 0) index = current_device();
  TORCH_CHECK(index < device_count(), "opennpu: there is no device ", static_cast<int>(index));
  const auto i = static_cast<size_t>(index);
  std::call_once(made[i], [&] { generators[i] = new_generator(index); });
  return generators[i];
}

at::Generator new_generator(DeviceIndex index) {
  if (index < 0) index = current_device();
  return at::make_generator<DeviceGenerator>(index, at::detail::createCPUGenerator());
}

at::Generator host_generator(const std::optional<at::Generator>& generator, DeviceIndex index) {
  const at::Generator& used =
      generator.has_value() && generator->defined() ? *generator : default_generator(index);
  if (used.device().is_cpu()) return used;
  return static_cast<const DeviceGenerator*>(used.unsafeGetGeneratorImpl())->host();
}

}  // namespace opennpu::torch_device
