/*
 * The symbol reader of `bivisor translate`: a name (one byte of length, then the name),
 * then the file.
 */
#include "ctl/elf_symbol.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char name[256], why[256] = "";
    struct elf_code code;
    size_t len;
    uint8_t *file;

    if (!size)
        return 0;
    len = data[0] < size - 1 ? data[0] : size - 1;
    memcpy(name, data + 1, len);
    name[len] = '\0';
    size -= 1 + len;
    file = malloc(size ? size : 1); /* of its own, so that a byte before it is seen */
    memcpy(file, data + 1 + len, size);
    elf_probe(file, size);
    if (elf_symbol_find(file, size, name, &code, why, sizeof(why))) {
        HOLDS(why[0]);
    } else {
        HOLDS(code.bytes >= file && code.bytes <= file + size);
        HOLDS(code.size <= size - (size_t)(code.bytes - file));
        HOLDS(code.mode == MODE_64 || code.mode == MODE_32);
    }
    free(file);
    return 0;
}
