/* A growing byte string. After a failed append `failed` stays set and appends do nothing: check
 * once at the end. Not thread-safe. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *data; /* always terminated once something was appended */
    size_t length, capacity;
    bool failed;
};

void text_append(struct text *text, const void *bytes, size_t length);
void text_append_string(struct text *text, const char *string);
void text_append_u64(struct text *text, uint64_t value);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Gives the string to the caller (to free with free) and empties the text; NULL if anything failed.
 * An empty text gives "". */
char *text_take(struct text *text);
void text_free(struct text *text);

#endif
