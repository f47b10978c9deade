// Lets a build of torch without CUDA compute shapes on a CUDA device, with autograd: streams and
// events that do nothing, since the tensors hold no data. Loaded before torch (LD_PRELOAD).

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using namespace c10;

namespace {

struct Guard final : impl::DeviceGuardImplInterface {
  static constexpr DeviceType kind = DeviceType::CUDA;
  DeviceType type() const override { return kind; }
  Device exchangeDevice(Device) const override { return Device(kind, 0); }
  Device getDevice() const override { return Device(kind, 0); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, Device(kind, 0)); }
  Stream getDefaultStream(Device) const override { return getStream(Device(kind, 0)); }
  Stream exchangeStream(Stream) const override { return getStream(Device(kind, 0)); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  bool isBuilt() const { return true; }  // without override: older releases have neither
  bool isAvailable() const { return true; }
};

Guard guard;
impl::DeviceGuardImplRegistrar registrar(DeviceType::CUDA, &guard);

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}
