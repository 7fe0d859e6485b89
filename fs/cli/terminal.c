/* SPDX-License-Identifier: MIT */
#include "fs/cli/terminal.h"
#include "unshard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_COLUMNS 80

static bool window_size(FILE *stream, struct winsize *size)
{
    int fd = fileno(stream);
    *size = (struct winsize){0};
    if (!isatty(fd))
        return false;
    if (ioctl(fd, TIOCGWINSZ, size) < 0)
        *size = (struct winsize){0};
    return true;
}

unsigned terminal_columns(FILE *stream)
{
    struct winsize size;
    if (!window_size(stream, &size))
        return 0;
    return size.ws_col > 0 ? size.ws_col : DEFAULT_COLUMNS;
}

unsigned terminal_rows(FILE *stream)
{
    struct winsize size;
    return window_size(stream, &size) ? size.ws_row : 0;
}

bool terminal_takes_escapes(FILE *stream)
{
    const char *type = getenv("TERM"), *plain = getenv("NO_COLOR");
    return isatty(fileno(stream)) && type && *type && strcmp(type, "dumb") != 0 &&
           (!plain || !*plain);
}

/* A byte, or a C1 control, that a terminal would act on, and that is no white space of JSON. */
static bool is_control(const unsigned char *bytes, size_t size)
{
    if (size == 1)
        return (bytes[0] < 0x20 && bytes[0] != '\n' && bytes[0] != '\t') || bytes[0] == 0x7f;
    return size == 2 && bytes[0] == 0xc2 && bytes[1] < 0xa0;
}

void terminal_put_json(FILE *stream, const char *json)
{
    const unsigned char *bytes = (const unsigned char *)json;
    size_t left = strlen(json);
    while (left > 0) {
        size_t size = unshard_utf8_sequence(bytes, left);
        if (size == 0)
            fputs("\\ufffd", stream);
        else if (is_control(bytes, size))
            fprintf(stream, "\\u%04x", bytes[size - 1]);
        else
            fwrite(bytes, 1, size, stream);
        size += size == 0;
        bytes += size;
        left -= size;
    }
}
