// A file mapped into memory, read only.
#pragma once

#include <cstddef>
#include <string>

namespace sparsekit {

class MappedFile {
 public:
  /// Throws std::system_error where the file cannot be opened or mapped, std::invalid_argument where it is empty.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace sparsekit
