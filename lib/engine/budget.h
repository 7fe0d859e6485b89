/* SPDX-License-Identifier: MIT
 *
 * What all models together may take of the page cache, see budget.c. The caller of everything here
 * holds engine->lock. */
#ifndef ENGINE_BUDGET_H
#define ENGINE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct unshard_engine;

/* In bytes, where so much is available. */
uint64_t budget_of(const struct unshard_engine *engine, uint64_t available);
/* So much more of a model is to come into the plan: others leave it, as far as that is needed and
 * nobody has them open. */
void budget_make_room(struct unshard_engine *engine, uint64_t bytes, uint64_t model,
                      uint64_t available);
/* Pages are to be given back, or are just now. */
bool budget_is_short(const struct unshard_engine *engine);
/* Takes the pages of one view away that left the plan, if there is one: true. The caller is a
 * storer; the lock is released meanwhile. Waits for readers as a store does. */
bool budget_drop_next(struct unshard_engine *engine);

#endif
