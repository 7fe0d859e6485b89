/* SPDX-License-Identifier: MIT */
#include "formats/foreign_content.h"

#include "base/error.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define QUOTED 96

struct content {
    const char *bytes, *path;
    size_t length;
    uint64_t size;
    struct unshard_error *error;
};

static bool begins_with(const struct content *content, size_t at, const char *words)
{
    size_t length = strlen(words);
    return at + length <= content->length && strncasecmp(content->bytes + at, words, length) == 0;
}

static bool begins_with_any(const struct content *content, size_t at, const char *const *words)
{
    for (; *words != NULL; words++)
        if (begins_with(content, at, *words))
            return true;
    return false;
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static size_t skip_spaces(const struct content *content, size_t at)
{
    while (at < content->length && is_space(content->bytes[at]))
        at++;
    return at;
}

/* Where the text begins: behind a mark of its encoding and white space. */
static size_t text_start(const struct content *content)
{
    return skip_spaces(content, begins_with(content, 0, "\xef\xbb\xbf") ? 3 : 0);
}

/* The first line from `at` on, up to a byte of `end`. */
static const char *line_from(const struct content *content, size_t at, const char *end,
                             char out[QUOTED])
{
    size_t length = 0;
    while (at + length < content->length && content->bytes[at + length] != '\0' &&
           strchr(end, content->bytes[at + length]) == NULL)
        length++;
    while (length > 0 && is_space(content->bytes[at + length - 1]))
        length--;
    return error_printable(out, QUOTED, content->bytes + at, length);
}

/* The title of a page often says what is wrong: "Sign in", "Access denied". */
static bool find_title(const struct content *content, char out[QUOTED])
{
    for (size_t at = 0; at < content->length; at++) {
        if (!begins_with(content, at, "<title"))
            continue;
        const char *close = memchr(content->bytes + at, '>', content->length - at);
        if (close == NULL)
            return false;
        at = skip_spaces(content, (size_t)(close - content->bytes) + 1);
        return line_from(content, at, "<\n", out)[0] != '\0';
    }
    return false;
}

static int is_page(const struct content *content)
{
    char title[QUOTED];
    if (find_title(content, title))
        return error_set(content->error, "web-page", 0,
                         "%s: is a saved web page (HTML) of %" PRIu64
                         " bytes with the title \"%s\": see what it says, and fetch the file again",
                         content->path, content->size, title);
    return error_set(content->error, "web-page", 0,
                     "%s: is a saved web page (HTML) of %" PRIu64
                     " bytes: see what it says, and fetch the file again",
                     content->path, content->size);
}

static int is_answer(const struct content *content, size_t start)
{
    char quoted[QUOTED];
    return error_set(content->error, "server-answer", 0,
                     "%s: is the answer of a server, of %" PRIu64
                     " bytes, that says %s: fetch the file again",
                     content->path, content->size, line_from(content, start, "\r\n", quoted));
}

/* {"error": ..., as servers of models answer; <?xml ...><Error>, as object stores do. */
static bool looks_like_answer(const struct content *content, size_t start)
{
    static const char *const keys[] = {"\"error",  "\"message\"", "\"detail\"", "\"code\"",
                                       "\"status", "\"success\"", NULL};
    static const char *const elements[] = {"<Error>", "<Error ", NULL};
    if (begins_with(content, start, "{"))
        return begins_with_any(content, skip_spaces(content, start + 1), keys);
    for (size_t at = start; begins_with(content, start, "<?xml") && at < content->length; at++)
        if (begins_with_any(content, at, elements))
            return true;
    return begins_with_any(content, start, elements);
}

static int recognise(const struct content *content)
{
    static const char *const pages[] = {"<!doctype html", "<html", "<head", "<body", NULL};
    size_t start = text_start(content);
    if (content->size == 0)
        return error_set(content->error, "truncated", 0, "%s: is empty (0 bytes): fetch it again",
                         content->path);
    if (begins_with(content, 0, "version https://") &&
        memmem(content->bytes, content->length, "github.com/spec/", 16) != NULL)
        return error_set(content->error, "lfs-pointer", 0,
                         "%s: is a Git LFS pointer of %" PRIu64
                         " bytes, the file was not pulled: git lfs pull fetches it",
                         content->path, content->size);
    if (begins_with_any(content, start, pages))
        return is_page(content);
    return looks_like_answer(content, start) ? is_answer(content, start) : 0;
}

int foreign_bytes(const void *bytes, size_t length, uint64_t size, const char *path,
                  struct unshard_error *error)
{
    struct content content = {.bytes = bytes, .path = path, .size = size, .error = error};
    content.length = length < FOREIGN_CONTENT_BYTES ? length : FOREIGN_CONTENT_BYTES;
    return recognise(&content);
}

/* ---- files of other kinds ----------------------------------------------------------------------
 */

/* All of the beginning is text; a character may be cut at its end. */
static bool is_text(const struct content *content)
{
    const unsigned char *bytes = (const unsigned char *)content->bytes;
    for (size_t at = 0; at < content->length;) {
        size_t size = utf8_sequence(bytes + at, content->length - at);
        if (size == 0)
            return at > 0 && content->length - at < 4 && content->length < content->size;
        if (size == 1 && (bytes[at] < 0x20 || bytes[at] == 0x7f) && !is_space((char)bytes[at]))
            return false;
        at += size;
    }
    return true;
}

static const char *other_kind(const struct content *content)
{
    static const struct {
        const char *magic, *what;
    } kinds[] = {
        {"PK\3\4", "a zip archive, as PyTorch writes it"},
        {"GGUF", "a GGUF file"},
        {"\x1f\x8b", "compressed with gzip"},
        {"\x28\xb5\x2f\xfd", "compressed with zstd"},
        {"BZh", "compressed with bzip2"},
        {"\xfd"
         "7zXZ",
         "compressed with xz"},
        {"7z\xbc\xaf", "a 7z archive"},
        {"\x89HDF", "an HDF5 file"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t length = strlen(kinds[i].magic);
        if (content->length >= length && memcmp(content->bytes, kinds[i].magic, length) == 0)
            return kinds[i].what;
    }
    return NULL;
}

int foreign_content(const struct byte_reader *reader, const char *path, const char *wanted,
                    struct unshard_error *error)
{
    char bytes[FOREIGN_CONTENT_BYTES], quoted[QUOTED];
    struct content content = {.bytes = bytes, .path = path, .size = reader->size, .error = error};
    content.length = reader->size < sizeof bytes ? (size_t)reader->size : sizeof bytes;
    if (content.length > 0 && reader->read(reader->context, 0, bytes, content.length) != 0)
        return 0;
    int result = recognise(&content);
    if (result != 0 || wanted == NULL)
        return result;
    const char *kind = other_kind(&content);
    if (kind != NULL)
        return error_set(error, "not-weights", 0, "%s: is %s, not %s: give it its right name", path,
                         kind, wanted);
    if (is_text(&content))
        return error_set(error, "not-weights", 0,
                         "%s: is text of %" PRIu64 " bytes, not %s, and begins with \"%s\": fetch "
                         "the file again",
                         path, reader->size, wanted, line_from(&content, 0, "\r\n", quoted));
    return 0;
}
