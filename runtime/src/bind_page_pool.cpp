#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings.h"
#include "page_pool.h"

namespace nb = nanobind;

namespace opennpu {

namespace {

using Pages = std::vector<int64_t>;
using ConstHostBytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

KvLayout layout_of(const std::string& name) {
  if (name == "paged") return KvLayout::Paged;
  if (name == "slots") return KvLayout::Slots;
  throw Error{NPU_ERROR_INVALID_ARGUMENT, "no KV layout \"" + name + "\": there are \"paged\" and \"slots\""};
}

nb::object export_pages(const PagePool& self, const Pages& pages) {
  auto* data = new std::byte[pages.size() * self.page_bytes()];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<std::byte*>(p); });
  self.export_pages(pages, data);
  return nb::cast(
      nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>>(data, {pages.size(), self.page_bytes()}, owner));
}

void import_pages(PagePool& self, const Pages& pages, const ConstHostBytes& data) {
  if (data.shape(0) != pages.size() || data.shape(1) != self.page_bytes()) {
    throw Error{NPU_ERROR_INVALID_ARGUMENT, "import of " + std::to_string(pages.size()) +
                                                " pages takes uint8 [" + std::to_string(pages.size()) + ", " +
                                                std::to_string(self.page_bytes()) + "]"};
  }
  self.import_pages(pages, reinterpret_cast<const std::byte*>(data.data()));
}

nb::dict strides(const PagePool& self) {
  nb::dict out;
  out["layer_stride"] = self.strides().layer;
  out["page_stride"] = self.strides().page;
  out["token_stride"] = self.strides().token;
  out["head_stride"] = self.strides().head;
  return out;
}

}  // namespace

void bind_page_pool(nb::module_& m) {
  nb::class_<PagePool>(m, "PagePool")
      .def(
          "__init__",
          [](PagePool* self, DevicePtr device, uint64_t layers, uint64_t kv_heads, uint64_t head_dim,
             uint64_t v_head_dim, uint64_t element_bytes, uint64_t page_size, uint64_t pages,
             const std::string& layout) {
            const KvGeometry geometry{layers,        kv_heads,  head_dim, v_head_dim,
                                      element_bytes, page_size, pages};
            new (self) PagePool(std::move(device), geometry, layout_of(layout));
          },
          nb::arg("device"), nb::kw_only(), nb::arg("layers"), nb::arg("kv_heads"), nb::arg("head_dim"),
          nb::arg("v_head_dim"), nb::arg("element_bytes"), nb::arg("page_size"), nb::arg("pages"),
          nb::arg("layout"))
      .def("alloc", &PagePool::alloc)
      .def("retain", [](PagePool& self, const Pages& pages) { self.retain(pages); })
      .def("release", [](PagePool& self, const Pages& pages) { self.release(pages); })
      .def("references", &PagePool::references)
      .def("export_pages", &export_pages)
      .def("import_pages", &import_pages)
      .def("strides", &strides)
      .def_prop_ro("v_offset", [](const PagePool& self) { return self.strides().v_offset; })
      .def_prop_ro("memory", &PagePool::memory, nb::rv_policy::reference_internal)
      .def_prop_ro("free_pages", &PagePool::free_pages)
      .def_prop_ro("page_bytes", &PagePool::page_bytes);
}

}  // namespace opennpu
