/* SPDX-License-Identifier: MIT
 *
 * Which files are taken for whole pipelines, by the names of their tensors, and the split= option.
 */
#include "tree/split_option.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MOST 64

/* Tensors of these names, up to a NULL; config: the metadata of that name, or NULL. */
static bool recognise(const char *const *names, const char *config, struct component_prefixes *out)
{
    struct tensor tensors[MOST] = {0};
    struct metadata_entry metadata[2] = {{"format", "pt", 6, 2}, {"config", config, 6, 0}};
    struct tensor_set set = {.tensors = tensors, .metadata = metadata, .metadata_count = 1};
    if (config != NULL) {
        metadata[1].value_length = (uint32_t)strlen(config);
        set.metadata_count = 2;
    }
    for (; names[set.tensor_count] != NULL; set.tensor_count++) {
        tensors[set.tensor_count].name = names[set.tensor_count];
        tensors[set.tensor_count].name_length = (uint32_t)strlen(names[set.tensor_count]);
    }
    return component_prefixes_recognise(&set, 1, out);
}

/* "PREFIX=DIRECTORY PREFIX=DIRECTORY", or "" when they are no pipeline. */
#define finds(expected, config, ...) \
    check_found((const char *const[]){__VA_ARGS__, NULL}, config, expected, __LINE__)

static void check_found(const char *const *names, const char *config, const char *expected,
                        int line)
{
    struct component_prefixes found;
    char text[1024] = "";
    bool recognised = recognise(names, config, &found);
    for (size_t i = 0; recognised && i < found.count; i++) {
        size_t used = strlen(text);
        assert_int_equal(found.items[i].length, strlen(found.items[i].prefix));
        snprintf(text + used, sizeof text - used, "%s%s=%s", i > 0 ? " " : "",
                 found.items[i].prefix, found.items[i].directory);
    }
    if (strcmp(text, expected) != 0)
        fail_msg("line %d: '%s', not '%s'", line, text, expected);
}

static void test_stable_diffusion(void **state)
{
    (void)state;
    finds("model.diffusion_model.=unet first_stage_model.=vae cond_stage_model.=text_encoder", NULL,
          "alphas_cumprod", "model.diffusion_model.input_blocks.0.0.weight",
          "model.diffusion_model.out.0.bias", "first_stage_model.encoder.conv_in.weight",
          "cond_stage_model.transformer.text_model.embeddings.position_ids", "model_ema.decay");
    finds("model.diffusion_model.=unet conditioner.embedders.0.=text_encoder "
          "conditioner.embedders.1.=text_encoder_2 first_stage_model.=vae",
          NULL, "model.diffusion_model.input_blocks.0.0.weight",
          "conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x",
          "conditioner.embedders.1.model.y", "first_stage_model.x");
    finds("model.diffusion_model.=transformer text_encoders.clip_l.=text_encoder_clip_l "
          "text_encoders.t5xxl.=text_encoder_t5xxl vae.=vae",
          NULL, "model.diffusion_model.joint_blocks.0.x", "text_encoders.clip_l.transformer.x",
          "text_encoders.t5xxl.transformer.x", "vae.decoder.x");
}

static void test_ltx_2(void **state)
{
    (void)state;
    static const char config[] = "{\"transformer\":{\"a\":1},\"vae\":{},\"scheduler\":null}";
    finds("model.diffusion_model.=transformer vae.=vae audio_vae.=audio_vae vocoder.=vocoder "
          "text_embedding_projection.=text_embedding_projection",
          config, "model.diffusion_model.patchify_proj.weight", "vae.encoder.x",
          "audio_vae.decoder.x", "vocoder.conv.x", "text_embedding_projection.x.weight");
    finds("vae.=vae audio_vae.=audio_vae", config, "vae.x", "audio_vae.x");
    finds("", NULL, "vae.x", "audio_vae.x");
    finds("", "{\"transformer\":{}}", "vae.x", "audio_vae.x");
    finds("", "[\"transformer\",\"vae\"]", "vae.x", "audio_vae.x");
    finds("", "{\"transformer\":1,\"vae\":1", "vae.x", "audio_vae.x");
    finds("", "{\"transformer\":1,\"vae\":1}}", "vae.x", "audio_vae.x");
    finds("", "", "vae.x", "audio_vae.x");
}

static void test_visual_gen(void **state)
{
    (void)state;
    finds("transformer.=transformer video_vae.=video_vae text_encoder.=text_encoder", NULL,
          "transformer.blocks.0.x", "video_vae.x", "text_encoder.x");
    finds("transformer.=transformer transformer_2.=transformer_2", NULL, "transformer.x",
          "transformer_2.x");
    /* A tensor that belongs to none of them: some other model with parts of these names. */
    finds("", NULL, "transformer.blocks.0.x", "video_vae.x", "lm_head.weight");
    finds("", NULL, "text_encoder.x", "image_encoder.x");
}

/* One prefix, or several that say nothing, are no pipeline. */
static void test_ordinary_models(void **state)
{
    (void)state;
    finds("", NULL, "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight",
          "lm_head.weight");
    finds("", NULL, "transformer.h.0.attn.c_attn.weight", "transformer.wte.weight");
    finds("", NULL, "transformer.h.0.attn.c_attn.weight", "lm_head.weight");
    finds("", NULL, "encoder.block.0.x", "decoder.block.0.x", "shared.weight");
    finds("", NULL, "vision_model.x", "text_model.x", "logit_scale");
    finds("", NULL, "model.diffusion_model.input_blocks.0.x");
    finds("", NULL, "model.layers.0.x", "text_embedding_projection.x");
    finds("", NULL, "model.diffusion_model", "vae", "modelXdiffusion_model.a", "vaeX.b");
    finds("", NULL, "conditioner.embedders.x.y", "conditioner.embedders..y",
          "conditioner.embedders.123.y", "text_encoders..x", "text_encoders.a/b.x",
          "text_encoders.noend");
    finds("", NULL, "", ".", "..");
}

static void test_too_many_components(void **state)
{
    (void)state;
    char names[40][40];
    const char *list[42] = {"model.diffusion_model.x"};
    struct component_prefixes found;
    for (int i = 0; i < 40; i++) {
        snprintf(names[i], sizeof names[i], "text_encoders.e%d.x", i);
        list[i + 1] = names[i];
    }
    assert_false(recognise(list, NULL, &found));
    list[COMPONENT_PREFIXES_MAX] = NULL;
    assert_true(recognise(list, NULL, &found));
    assert_int_equal(found.count, COMPONENT_PREFIXES_MAX);
}

static void accepts(const char *value, const char *expected)
{
    struct split_option option;
    struct unshard_error error = {0};
    char text[1024] = "";
    if (split_option_parse(value, &option, &error) != 0)
        fail_msg("%s: %s", value, error.message);
    for (size_t i = 0; i < option.prefixes.count; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s=%s ", option.prefixes.items[i].prefix,
                 option.prefixes.items[i].directory);
    }
    assert_string_equal(text, expected);
    assert_int_equal(option.mode, expected[0] != '\0'                          ? SPLIT_NAMED
                                  : value != NULL && strcmp(value, "off") == 0 ? SPLIT_OFF
                                                                               : SPLIT_AUTO);
}

static void refuses(const char *value, const char *words)
{
    struct split_option option;
    struct unshard_error error = {0};
    assert_int_equal(split_option_parse(value, &option, &error), -EINVAL);
    if (strcmp(error.code, "bad-option") != 0 || strstr(error.message, words) == NULL)
        fail_msg("%s: '%s' does not say '%s'", value, error.message, words);
}

static void test_option(void **state)
{
    (void)state;
    char longest[400];
    accepts(NULL, "");
    accepts("auto", "");
    accepts("off", "");
    accepts("vae.", "vae.=vae ");
    accepts("vae", "vae.=vae ");
    accepts("first_stage_model.=decoder,vae=v", "first_stage_model.=decoder vae.=v ");
    accepts("a.b.c:d.e=f", "a.b.c.=a_b_c d.e.=f ");
    accepts(".a.b", ".a.b.=_a_b ");
    accepts("conditioner.embedders.1.", "conditioner.embedders.1.=text_encoder_2 ");
    accepts("text_encoders.t5xxl", "text_encoders.t5xxl.=text_encoder_t5xxl ");
    refuses("", "names no prefix");
    refuses(",", "a prefix");
    refuses("a,,b", "a prefix");
    refuses(".", "a prefix");
    refuses("=x", "a prefix");
    refuses("a=", "name of its directory");
    refuses("a=..", "name of its directory");
    refuses("a=.unshard", "name of its directory");
    refuses("a=b/c", "name of its directory");
    refuses("a/b", "name of its directory");
    refuses("a=b\n", "name of its directory");
    refuses("vae,vae.=x", "there already");
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    refuses(longest, "too long");
    longest[1] = '=';
    refuses(longest, "too long");
    longest[0] = '\0';
    for (size_t i = 0; i <= COMPONENT_PREFIXES_MAX; i++)
        snprintf(longest + strlen(longest), 8, "p%zu,", i);
    refuses(longest, "too many");
}

static void test_file_names(void **state)
{
    (void)state;
    assert_string_equal(component_prefix_file("text_encoder_2"), "model.safetensors");
    assert_string_equal(component_prefix_file("image_encoder"), "model.safetensors");
    assert_string_equal(component_prefix_file("vae"), "diffusion_pytorch_model.safetensors");
    assert_string_equal(component_prefix_file("transformer"),
                        "diffusion_pytorch_model.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stable_diffusion),    cmocka_unit_test(test_ltx_2),
        cmocka_unit_test(test_visual_gen),          cmocka_unit_test(test_ordinary_models),
        cmocka_unit_test(test_too_many_components), cmocka_unit_test(test_option),
        cmocka_unit_test(test_file_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
