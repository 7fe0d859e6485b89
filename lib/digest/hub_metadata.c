/* SPDX-License-Identifier: MIT */
#include "digest/hub_metadata.h"

#include "base/checked.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NS_PER_SECOND INT64_C(1000000000)

struct line {
    const char *text;
    size_t length;
};

static bool is_lower_hex(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    return true;
}

bool hub_etag_digest(const char *etag, size_t length, struct digest *out)
{
    *out = (struct digest){0};
    if (length >= 2 && etag[0] == 'W' && etag[1] == '/') {
        etag += 2;
        length -= 2;
    }
    if (length >= 2 && etag[0] == '"' && etag[length - 1] == '"') {
        etag++;
        length -= 2;
    }
    if (!is_lower_hex(etag, length))
        return false;
    return digest_from_hex(DIGEST_SHA256, etag, length, out) ||
           digest_from_hex(DIGEST_GIT_SHA1, etag, length, out);
}

bool hub_is_commit(const char *text, size_t length)
{
    return length == HUB_COMMIT_DIGITS && is_lower_hex(text, length);
}

static bool is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Takes the next line, stripped as Python's str.strip strips ASCII; an empty one at the end. */
static struct line next_line(const char **text, size_t *left)
{
    const char *feed = *left > 0 ? memchr(*text, '\n', *left) : NULL;
    struct line line = {*text, feed == NULL ? *left : (size_t)(feed - *text)};
    size_t taken = feed == NULL ? *left : line.length + 1;
    *text += taken;
    *left -= taken;
    while (line.length > 0 && is_space(line.text[line.length - 1]))
        line.length--;
    while (line.length > 0 && is_space(*line.text)) {
        line.text++;
        line.length--;
    }
    return line;
}

/* "1718364512.1234567" in nanoseconds; what is beyond them is dropped. */
static bool parse_seconds(struct line line, int64_t *out)
{
    uint64_t seconds = 0, nanoseconds = 0;
    bool negative = line.length > 0 && line.text[0] == '-';
    size_t i = negative, first = i;
    for (; i < line.length && line.text[i] >= '0' && line.text[i] <= '9'; i++)
        if (!checked_mul(seconds, 10, &seconds) ||
            !checked_add(seconds, (uint64_t)(line.text[i] - '0'), &seconds))
            return false;
    if (i == first || seconds > (uint64_t)(INT64_MAX / NS_PER_SECOND - 1))
        return false;
    if (i < line.length && line.text[i] == '.') {
        uint64_t unit = NS_PER_SECOND / 10;
        for (i++; i < line.length && line.text[i] >= '0' && line.text[i] <= '9'; i++) {
            nanoseconds += unit * (uint64_t)(line.text[i] - '0');
            unit /= 10;
        }
    }
    int64_t value = (int64_t)seconds * NS_PER_SECOND + (int64_t)nanoseconds;
    *out = negative ? -value : value;
    return i == line.length;
}

int hub_metadata_parse(const char *text, size_t length, const char *path, struct hub_metadata *out,
                       struct unshard_error *error)
{
    struct hub_metadata metadata = {0};
    char quoted[64];
    if (length > HUB_METADATA_MAX_BYTES)
        return error_set(error, "malformed-metadata", EFBIG,
                         "%s: %zu bytes are too many for download metadata", path, length);
    struct line commit = next_line(&text, &length);
    struct line etag = next_line(&text, &length);
    struct line time = next_line(&text, &length);
    if (commit.length == 0 || etag.length == 0)
        return error_set(error, "malformed-metadata", 0, "%s line %d: there is no %s", path,
                         commit.length == 0 ? 1 : 2, commit.length == 0 ? "commit" : "ETag");
    if (!parse_seconds(time, &metadata.timestamp_ns))
        return error_set(error, "malformed-metadata", 0, "%s line 3: \"%s\" is no time in seconds",
                         path, error_quote(quoted, sizeof quoted, time.text, time.length));
    if (hub_is_commit(commit.text, commit.length))
        memcpy(metadata.commit, commit.text, commit.length);
    hub_etag_digest(etag.text, etag.length, &metadata.digest);
    *out = metadata;
    return 0;
}

bool hub_metadata_is_current(const struct hub_metadata *metadata, int64_t mtime_ns)
{
    int64_t earliest;
    return !__builtin_sub_overflow(mtime_ns, NS_PER_SECOND, &earliest) &&
           earliest <= metadata->timestamp_ns;
}
