// Two devices that are made of nothing but the processor's memory, and are as strict as GPUs: no operation takes
// tensors of different devices, except indices that lie on the CPU and single numbers, and the backward pass runs in a
// thread of each device's own. Whatever is computed is computed by PyTorch's own operations on the same bytes.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

using namespace at;

namespace {

constexpr auto PRETEND = c10::DeviceType::PrivateUse1;
constexpr int DEVICES = 2;
thread_local int current = 0;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return PRETEND; }
  Device exchangeDevice(Device device) const override {
    Device before(PRETEND, current);
    current = device.index();
    return before;
  }
  Device getDevice() const override { return Device(PRETEND, current); }
  void setDevice(Device device) const override { current = device.index(); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  Stream getStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream getNewStream(Device device, int) const override { return Stream(Stream::DEFAULT, device); }
  Stream getDefaultStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const override { return Stream(Stream::DEFAULT, stream.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return DEVICES; }
  void record(void**, const Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

void release(void* bytes) { std::free(bytes); }

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* bytes = size ? std::malloc(size) : nullptr;
    TORCH_CHECK_WITH(OutOfMemoryError, bytes || !size, "the pretended device is out of memory");
    return {bytes, bytes, &release, Device(PRETEND, current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
};
Memory memory;
REGISTER_ALLOCATOR(PRETEND, &memory)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return DEVICES; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void resizePrivateUse1Bytes(const Storage& storage, size_t size) const override {
    auto larger = memory.allocate(size);
    if (storage.nbytes()) std::memcpy(larger.mutable_get(), storage.data(), std::min(size, storage.nbytes()));
    const_cast<Storage&>(storage).set_data_ptr_noswap(std::move(larger));
    const_cast<Storage&>(storage).set_nbytes(size);
  }
};
[[maybe_unused]] const int registered = (at::RegisterPrivateUse1HooksInterface(new Hooks()), 0);

// The same bytes as a tensor of the CPU.
Tensor on_cpu(const Tensor& tensor) {
  if (!tensor.defined() || tensor.device().type() != PRETEND) return tensor;
  auto storage = c10::Storage(
      c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
      c10::DataPtr(const_cast<void*>(tensor.storage().data()), kCPU), c10::GetAllocator(c10::kCPU), true);
  auto made = at::detail::make_tensor<TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides());
  made.unsafeGetTensorImpl()->set_storage_offset(tensor.storage_offset());
  return made;
}

Device chosen(std::optional<Device> device) {
  return device && device->has_index() ? *device : Device(PRETEND, current);
}

Tensor new_empty(
    IntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device> device,
    std::optional<bool>, std::optional<MemoryFormat> format) {
  c10::DeviceGuard guard(chosen(device));
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}

Tensor new_strided(
    IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> dtype, std::optional<Layout>,
    std::optional<Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(chosen(device));
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(dtype));
}

Tensor moved(const Tensor& tensor, Device device) {
  auto made = new_strided(tensor.sizes(), tensor.strides(), tensor.scalar_type(), {}, device, {});
  on_cpu(made).copy_(tensor);
  return made;
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

Scalar number(const Tensor& tensor) { return on_cpu(tensor).item(); }

Tensor& set_storage(Tensor& tensor, Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(storage);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  tensor.unsafeGetTensorImpl()->set_storage_offset(offset);
  return tensor;
}

const Tensor& resize_to(const Tensor& tensor, SymIntArrayRef size, std::optional<MemoryFormat>) {
  auto* made = tensor.unsafeGetTensorImpl();
  made->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t bytes = (made->storage_offset() + made->numel()) * made->itemsize();
  if (tensor.storage().nbytes() < bytes) {
    c10::DeviceGuard guard(tensor.device());
    Hooks().resizePrivateUse1Bytes(tensor.storage(), bytes);
  }
  return tensor;
}

// Operations whose indices may lie on the CPU, as on a GPU.
const std::set<std::string> INDEXING = {
    "aten::index.Tensor",     "aten::index.Tensor_out",     "aten::index_put_",
    "aten::_index_put_impl_", "aten::_unsafe_index.Tensor", "aten::_unsafe_index_put"};

// Any other operation: refused if its tensors are of several devices, and else done on the same bytes by the CPU.
void any_other(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto name = toString(op.operator_name());
  const auto arguments = schema.arguments().size(), first = stack->size() - arguments;
  const std::vector<c10::IValue> given(stack->begin() + first, stack->end());
  std::optional<Device> device;
  bool with_cpu = false;
  auto take = [&](const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (tensor.device().type() != PRETEND) {
      with_cpu |= tensor.dim() > 0;
      return tensor;
    }
    TORCH_CHECK(!device || *device == tensor.device(), name, " was given tensors of two devices");
    device = tensor.device();
    return on_cpu(tensor);
  };
  for (size_t i = 0; i < arguments; i++) {
    auto& value = (*stack)[first + i];
    if (value.isTensor()) {
      value = take(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> all;
      for (const Tensor& each : value.toTensorList()) all.push_back(take(each));
      value = all;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> all;
      for (const c10::IValue& each : value.toListRef())
        all.push_back(each.isTensor() ? std::optional<Tensor>(take(each.toTensor())) : std::nullopt);
      value = all;
    } else if (value.isDevice()) {
      if (!device) device = value.toDevice();
      value = c10::IValue(Device(kCPU));
    }
  }
  TORCH_CHECK(!with_cpu || !device || INDEXING.count(name), name, " was given tensors of the CPU and a device");
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  const auto results = schema.returns().size(), last = stack->size() - results;
  for (size_t r = 0; r < results; r++) {
    auto& value = (*stack)[last + r];
    const auto* alias = schema.returns()[r].alias_info();
    if (value.isTensorList()) {
      c10::List<Tensor> all;
      for (const Tensor& each : value.toTensorList()) all.push_back(moved(each, chosen(device)));
      value = all;
    } else if (value.isTensor() && value.toTensor().defined()) {
      size_t written = arguments;
      if (alias && alias->isWrite())
        for (size_t i = 0; i < arguments; i++) {
          const auto* own = schema.arguments()[i].alias_info();
          if (own && *own == *alias && given[i].isTensor()) written = i;
        }
      if (written == arguments) {
        TORCH_CHECK(!alias, name, " makes a view, which is not pretended");
        value = moved(value.toTensor(), chosen(device));
        continue;
      }
      const Tensor out = given[written].toTensor(), made = value.toTensor();
      if (out.sizes() != made.sizes()) {
        resize_to(out, c10::fromIntArrayRefSlow(made.sizes()), {});
        on_cpu(out).copy_(made);
      }
      value = out;
    }
  }
}

Tensor strided_view(const Tensor& tensor, IntArrayRef size, IntArrayRef stride, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(tensor, size, stride, offset);
}
Tensor sized_view(const Tensor& tensor, IntArrayRef size) { return at::native::view(tensor, size); }
Tensor reshape_alias(const Tensor& tensor, IntArrayRef size, IntArrayRef stride) {
  return at::native::_reshape_alias(tensor, size, stride);
}
Tensor unfold(const Tensor& tensor, int64_t dim, int64_t size, int64_t step) {
  return at::native::unfold(tensor, dim, size, step);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", new_empty);
  library.impl("empty_strided", new_strided);
  library.impl("_copy_from", copy_from);
  library.impl("_local_scalar_dense", number);
  library.impl("as_strided", strided_view);
  library.impl("view", sized_view);
  library.impl("_reshape_alias", reshape_alias);
  library.impl("unfold", unfold);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("resize_", resize_to);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&any_other>());
}
