/* SPDX-License-Identifier: MIT
 *
 * Why reads of a view fail, for clients of the engine within the library. */
#ifndef ENGINE_ENGINE_ERROR_H
#define ENGINE_ENGINE_ERROR_H

#include "unshard.h"

/* Copies the error of a file that the view needs to *error; false when none has one. Never blocks
 * on I/O. Thread-safe. */
bool engine_view_error(struct unshard_engine *engine, uint32_t view, struct unshard_error *error);

#endif
