/* SPDX-License-Identifier: MIT
 *
 * What a command's output goes to. Nothing here blocks for longer than a write to it does. */
#ifndef FS_CLI_TERMINAL_H
#define FS_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

/* Columns of the terminal behind the stream, 0 when it is none. */
unsigned terminal_columns(FILE *stream);
/* Rows of the terminal behind the stream, 0 when it is none or does not tell. */
unsigned terminal_rows(FILE *stream);
/* Whether a line or a picture may be drawn again in its place: the stream is a terminal, TERM says
 * which and is not "dumb", and NO_COLOR does not ask for plain text. */
bool terminal_takes_escapes(FILE *stream);
/* Writes JSON text that somebody else has made. What a terminal would act on is escaped as JSON
 * does it, so that a parser reads the same; a byte that is no UTF-8 becomes U+FFFD. */
void terminal_put_json(FILE *stream, const char *json);

#endif
