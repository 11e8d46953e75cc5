// The container of a program: header, argument kinds, text, locations.
#include <cstring>

#include "error.h"
#include "program.h"

namespace opennpu {

namespace {

[[noreturn]] void invalid(const std::string& what) {
  throw Error{NPU_ERROR_INVALID_PROGRAM, "invalid program image: " + what};
}

// Takes fields from the front of the bytes that are left.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : all_(bytes) {}

  std::span<const std::byte> take(uint64_t bytes, const char* what) {
    if (bytes > all_.size() - at_) {
      invalid(std::string(what) + " needs " + std::to_string(bytes) + " bytes at byte " +
              std::to_string(at_) + ", the image ends after " + std::to_string(all_.size()));
    }
    at_ += bytes;
    return all_.subspan(at_ - bytes, bytes);
  }

  template <typename T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

  void pad(uint64_t alignment) {
    while (at_ % alignment != 0) {
      if (read<uint8_t>("padding") != 0)
        invalid("padding that is not zero at byte " + std::to_string(at_ - 1));
    }
  }

  size_t left() const { return all_.size() - at_; }

 private:
  std::span<const std::byte> all_;
  size_t at_ = 0;
};

struct Header {
  uint64_t words;
  uint32_t args, locations;
  uint64_t location_bytes;
};

Header read_header(Reader& in, const npu_chip_desc& chip) {
  constexpr char magic[] = "ONPUPROG";
  if (std::memcmp(in.take(8, "magic").data(), magic, 8) != 0) invalid("it does not start with ONPUPROG");
  const auto version = in.read<uint32_t>("version");
  if (version != 1) invalid("format version " + std::to_string(version) + ", this driver reads 1");
  const auto isa_version = in.read<uint32_t>("isa version");
  if (isa_version != isa::kVersion) {
    invalid("instruction set version " + std::to_string(isa_version) + ", this driver runs " +
            std::to_string(isa::kVersion) + ": compile the model again");
  }
  const auto fingerprint = in.read<uint64_t>("chip fingerprint");
  if (fingerprint != chip.fingerprint) {
    char text[256];
    snprintf(
        text, sizeof text,
        "the program was compiled for the chip with fingerprint %016llx, this device is %s with %016llx: "
        "compile the model for this chip, or open the chip it was compiled for",
        static_cast<unsigned long long>(fingerprint), chip.name,
        static_cast<unsigned long long>(chip.fingerprint));
    throw Error{NPU_ERROR_WRONG_CHIP, text};
  }
  Header header;
  header.words = in.read<uint64_t>("text size");
  header.args = in.read<uint32_t>("number of arguments");
  header.locations = in.read<uint32_t>("number of locations");
  header.location_bytes = in.read<uint64_t>("size of the location text");
  return header;
}

std::vector<ArgKind> read_args(Reader& in, uint32_t count) {
  const auto bytes = in.take(uint64_t{4} * count, "argument kinds");
  std::vector<ArgKind> kinds(count);
  if (count != 0) std::memcpy(kinds.data(), bytes.data(), bytes.size());
  for (uint32_t i = 0; i < count; ++i) {
    if (kinds[i] > ArgKind::Write) {
      invalid("argument " + std::to_string(i) + " has the unknown kind " +
              std::to_string(static_cast<uint32_t>(kinds[i])));
    }
  }
  return kinds;
}

std::vector<std::string> read_locations(Reader& in, uint32_t count, uint64_t text_bytes) {
  const auto raw = in.take(4 * (uint64_t{count} + 1), "location offsets");
  std::vector<uint32_t> offsets(uint64_t{count} + 1);
  std::memcpy(offsets.data(), raw.data(), raw.size());
  const auto text = in.take(text_bytes, "location text");
  if (offsets.front() != 0 || offsets.back() != text_bytes) {
    invalid("the location offsets do not run from 0 to the size of the location text");
  }
  std::vector<std::string> locations(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (offsets[i] > offsets[i + 1])
      invalid("location offset " + std::to_string(i + 1) + " is less than the one before");
    const auto part = text.subspan(offsets[i], offsets[i + 1] - offsets[i]);
    locations[i].assign(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return locations;
}

}  // namespace

Program parse_image(std::span<const std::byte> image, const npu_chip_desc& chip) {
  Reader in(image);
  const Header header = read_header(in, chip);
  Program program;
  program.args = read_args(in, header.args);
  in.pad(8);
  if (header.words > UINT32_MAX) invalid("text of more than 2^32 words");
  if (header.words > in.left() / 8) {
    invalid("text of " + std::to_string(header.words) + " words, " + std::to_string(in.left()) +
            " bytes are left");
  }
  const auto text = in.take(8 * header.words, "text");
  program.locations = read_locations(in, header.locations, header.location_bytes);
  if (in.left() != 0) invalid(std::to_string(in.left()) + " bytes after the end");
  decode_text(text, chip, program);
  return program;
}

std::string Program::describe(const Site& site) const {
  std::string out = "instruction " + std::to_string(site.instruction);
  if (site.instruction < text.size()) {
    out += std::string(" (") + isa_row(text[site.instruction].opcode)->name + ")";
  }
  if (site.location < locations.size()) out += " of " + locations[site.location];
  return out;
}

}  // namespace opennpu
