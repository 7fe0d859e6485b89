/* Filling struct unshard_error. See lib/unshard.h for the convention: 0 or a negative errno. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "unshard.h"

#include <stdbool.h>

/* Fills *error (NULL is allowed) and returns -errno_value, or -EINVAL when errno_value is 0. code
 * must be a string literal. Clears the offset. The message becomes one line of UTF-8, as
 * error_printable makes it: whoever shows it need not do more. Thread-safe. */
int error_set(struct unshard_error *error, const char *code, int errno_value, const char *format,
              ...) __attribute__((format(printf, 4, 5)));

/* The same with the byte offset in the file concerned. */
int error_set_at(struct unshard_error *error, const char *code, int errno_value, uint64_t offset,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Notes the time, unless it has one. */
void error_stamp(struct unshard_error *error);

/* Fills *error for a failed allocation and returns -ENOMEM. */
int error_no_memory(struct unshard_error *error);

/* Writes at most capacity-1 bytes of a name of any content into out, control bytes, quotes,
 * backslashes and invalid UTF-8 as \xNN, and cuts it with "..." when it is longer; always
 * terminated. For names between quotes within a message. Returns out, so that it can stand in an
 * argument list. */
const char *error_quote(char *out, size_t capacity, const char *name, size_t length);
/* The same, but quotes and backslashes stay: for messages, and for what stands by itself. What has
 * been made printable before is left as it is. */
const char *error_printable(char *out, size_t capacity, const char *text, size_t length);
/* The same of a string as the value of a field (key="value") in a line for programs: only quotes
 * get a backslash. */
const char *error_field(char *out, size_t capacity, const char *value);

/* It is storage that did not give what was to be read: another time it may. Pure. */
bool error_is_of_storage(const struct unshard_error *error);

#endif
