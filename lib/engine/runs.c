/* SPDX-License-Identifier: MIT */
#include "engine/runs.h"

#include <stddef.h>

uint32_t runs_skip(const struct runs *runs, unsigned self, bool for_stream, uint32_t file,
                   uint32_t index, uint32_t end)
{
    for (unsigned i = 0; i < runs->count && index < end; i++) {
        const struct run *run = &runs->runs[i];
        if (i == self || run->file != file || index < run->next || index >= run->end ||
            (for_stream && run->stream == 0))
            continue;
        index = run->end;
        i = (unsigned)-1; /* another run may begin there */
    }
    return index < end ? index : end;
}

bool runs_steal(struct runs *runs, unsigned self, bool plan, struct run *out)
{
    struct run *longest = NULL;
    for (unsigned i = 0; i < runs->count; i++) {
        struct run *run = &runs->runs[i];
        if (i != self && !run_is_over(run) && (plan || run->stream != 0) &&
            (longest == NULL || run->end - run->next > longest->end - longest->next))
            longest = run;
    }
    if (longest == NULL)
        return false;
    *out = *longest;
    out->next = --longest->end;
    return true;
}

bool runs_have_more(const struct runs *runs)
{
    for (unsigned i = 0; i < runs->count; i++)
        if (!run_is_over(&runs->runs[i]))
            return true;
    return false;
}

void runs_end_file(struct runs *runs, uint32_t file)
{
    for (unsigned i = 0; i < runs->count; i++)
        if (runs->runs[i].file == file)
            runs->runs[i].next = runs->runs[i].end;
}
