"""Every key of LLaMA-Factory and of Hugging Face's TrainingArguments that is none of ours, and what becomes of it.

`docs/llamafactory.md` is written from these tables; a key stands in one of them: `RENAMED`, `TRANSLATED`, `REFUSED`,
`HARMLESS`.
"""

from collections.abc import Mapping
from typing import Any


def by_key(reasons: Mapping[str, str]) -> dict[str, str]:
    """Give every key of a list of keys its reason."""
    return {key: why for keys, why in reasons.items() for key in keys.split()}


NEUTRAL: tuple[Any, ...] = (None, False, 0, "", "none", "no", "auto", "default", [], {})
"""Values with which a key asks for nothing."""

RENAMED = {
    "base_model": "model_name_or_path",
    "model": "model_name_or_path",
    "lora_r": "lora_rank",
    "lora_target_modules": "lora_target",
    "target_modules": "lora_target",
    "micro_batch_size": "per_device_train_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "num_epochs": "num_train_epochs",
    "sequence_len": "cutoff_len",
    "max_seq_length": "cutoff_len",
    "val_set_size": "val_size",
    "train_on_inputs": "train_on_prompt",
    "sample_packing": "packing",
    "sft_packing": "packing",
    "activation_checkpointing": "gradient_checkpointing",
    "enable_activation_checkpointing": "gradient_checkpointing",
    "evaluation_strategy": "eval_strategy",
    "early_stopping_steps": "early_stopping_patience",
    "dataset_prepared_path": "tokenized_path",
    "sampling_strategy": "mixing",
    "dist_timeout": "ddp_timeout",
}
"""Other names of keys."""

TRANSLATED = {
    "stage": "`sft` learns answers, `pt` learns plain text whole, in blocks of `cutoff_len`; other stages are refused",
    "do_train": "`mtl-opt train` trains; without it, `do_predict` and `do_eval` are refused",
    "do_eval": "evaluation runs before and after training, and every `eval_steps`",
    "do_predict": "predictions are written after training; alone, `mtl-opt eval` measures a finished run",
    "warmup_ratio": "`warmup_steps` below 1",
    "eval_strategy": "`eval_steps`",
    "save_strategy": "`save_steps`",
    "mix_strategy": "`mixing` and `exhaustion`",
    "interleave_probs": "`mixing: ratios` and `ratios`",
    "train_sampling_strategy": "`group_by_length`; `sequential` is refused",
    "neat_packing": "`packing: true`: packed rows never see each other",
    "data_files": "`train_file`: one or more files below `dataset_dir`, whose rows carry `task_name`",
    "adapter": "`finetuning_type: lora`; `qlora` sets `quantization_bit: 4` too",
    "lora_target_linear": "`lora_target: all`",
}
"""Keys that are read as other keys, and as which."""

REFUSED = by_key(
    {
        "use_dft_loss use_asft_loss use_eaft_loss label_smoothing_factor num_mtp_layers": (
            "tasks are learnt with cross-entropy; another loss takes `mtl_opt.LossWeights` in a loop of your own"
        ),
        "moe_aux_loss_coef": "the loss of a task is that of its own rows; the loss of a router belongs to no task",
        "average_tokens_across_devices": "losses are means over the rows of all processes; see `loss_reduction`",
        "ignore_pad_token_for_loss": "padding is never learnt",
        "neftune_noise_alpha": "embeddings get no noise; `lora_dropout` is there",
        "additional_target freeze_extra_modules": (
            "modules beside the adapters would have no task gradient per adapter; `finetuning_type: full` trains all"
        ),
        "resize_vocab": "the vocabulary stays; resize the model with transformers and give its folder",
        "add_tokens add_special_tokens new_special_tokens_config": (
            "the vocabulary stays; add tokens with transformers and give the folder of model and tokenizer"
        ),
        "split_special_tokens": "texts of special tokens become special tokens, as in plain transformers",
        "pissa_init": "adapters start as peft's default: A random, B zero",
        "oft_rank": "`finetuning_type` is `lora` or `full`",
        "use_llama_pro mixture_of_depths": "the layers of the model stay; prepare the model and give its folder",
        "train_from_scratch": (
            "weights are read from the folder; save an untrained model with transformers and give that"
        ),
        "rope_scaling": "positions are those of the model; set `rope_scaling` in its `config.json`",
        "shift_attn": "attention is that of the model",
        "freeze_language_model": "the language model is what is trained",
        "adapter_folder": "give the folder itself as `adapter_name_or_path`",
        "checkpoint_dir": "give the folder as `adapter_name_or_path`",
        "model_revision": "download that revision and give its folder as `model_name_or_path`",
        "model_class init_config": "the model is the causal language model of its folder, or an encoder with `heads`",
        "peft_config": "give `lora_rank`, `lora_alpha`, `lora_target` and `lora_dropout` as keys",
        "quant_config": "give `quantization_bit` and `quantization_type` as keys",
        "pure_bf16": "weights in bfloat16 lose small updates; `bf16: true` computes in bfloat16",
        "fp8": "numbers are float32, or `bf16`, or `fp16`",
        "upcast_layernorm upcast_lmhead_output": "precision is one for the whole model: `bf16`, `fp16` or float32",
        "loraplus_lr_ratio": "all adapters have one learning rate, so that the weights of a combiner are its own",
        "use_muon use_adam_mini use_galore use_apollo use_badam": (
            "optimizers are those that `optim` lists; another one steps in a loop of your own (`mtl_opt.TaskGradients`)"
        ),
        "optim_args optim_target_modules optim_config": "optimizers take `learning_rate`, `weight_decay` and `adam_*`",
        "lr_scheduler_kwargs lr_scheduler_config": "schedules take `learning_rate`, `warmup_steps` and no arguments",
        "global_batch_size": (
            "give `rows_per_task` (or `per_device_train_batch_size`) and `gradient_accumulation_steps`"
        ),
        "disable_shuffling": "rows are shuffled; `mixing: curriculum` orders them",
        "sortish_sampler": "`group_by_length: true` draws rows of similar length together",
        "packing_strategy": "`packing: true` packs by length",
        "batching_strategy": "`packing: true` takes rows without padding, `tokens_per_batch` bounds a batch",
        "tool_format": "calls are written as the template writes them; choose the `template`",
        "default_system": "the system message is that of the row or the template; write it into the rows",
        "reasoning_effort preserve_thinking": "the template decides; `template: tokenizer` takes the model's own",
        "custom_chat_template": "write it into the tokenizer's `chat_template.jinja` and take `template: tokenizer`",
        "reserved_label_len max_source_length max_target_length": "`cutoff_len` bounds the whole row",
        "split": "data sets of a registry name their own `split`",
        "visual_inputs": "rows are text",
        "ignore_data_skip": "a run that goes on takes the next rows, so that it ends as one that never stopped",
        "label_names": "what is learnt follows from the rows and the template",
        "do_sample temperature top_p top_k": "evaluation takes the likeliest token; `mtl-opt generate` draws",
        "num_beams eval_num_beams generation_num_beams": (
            "evaluation takes the likeliest token; `mtl-opt generate` has beams"
        ),
        "repetition_penalty generation_config": "evaluation takes the likeliest token, as the model gives it",
        "max_length generation_max_length": "`max_new_tokens` bounds an answer",
        "skip_special_tokens": "answers are measured as text",
        "eval_delay": "the first evaluation is that of the untrained model; `eval_steps` says when others follow",
        "bf16_full_eval fp16_full_eval": "evaluation has the precision of training: `bf16` or `fp16`",
        "past_index": "the state of a model is not passed on from row to row",
        "task task_dir lang n_shot": "benchmarks are not run here; rows of your own are: `tasks`",
        "push_to_hub": "nothing is uploaded; upload the folder of `mtl-opt export`",
        "save_epochs": "`save_strategy: epoch`, or `save_steps` below 1, a share of all steps",
        "deepspeed": (
            "DeepSpeed sums gradients before anybody can take them apart; spread the model with `fsdp: base`, or "
            "use `mtl_opt.LossWeights` in a loop of your own"
        ),
        "use_mca use_megatron_bridge use_hyper_parallel dist_config parallelism_config accelerator_config use_kt "
        "kt_config": "task gradients are taken under torchrun alone or with `fsdp: base` or `full`",
        "fsdp_config fsdp_transformer_layer_cls_to_wrap fsdp_min_num_params sharded_ddp": (
            "`fsdp: base` or `full` spreads the model, block by block"
        ),
        "cp_size": "a row stays on one process",
        "ray_num_workers": "start the processes with torchrun",
        "split_batches": "`per_device_train_batch_size` counts rows of one process",
        "full_determinism": "runs repeat to the bit on one machine by `seed`; set CUBLAS_WORKSPACE_CONFIG for CUDA",
    }
)
"""Keys that would change what is trained or measured, with why, or what to use instead."""

DEFAULTS: dict[str, tuple[Any, ...]] = {
    "average_tokens_across_devices": (True,),
    "ignore_pad_token_for_loss": (True,),
    "num_beams": (1,),
    "generation_num_beams": (None, 1),
    "eval_num_beams": (None, 1),
    "repetition_penalty": (1, 1.0),
    "temperature": (None, 0, 0.95, 1),
    "top_p": (None, 0.7, 1),
    "top_k": (None, 0, 50),
    "max_length": (None, 1024),
    "skip_special_tokens": (True,),
    "model_revision": (None, "main"),
    "ray_num_workers": (None, 1),
    "cp_size": (None, 1),
    "reasoning_effort": (None, "xhigh"),
    "packing_strategy": (None, "length"),
    "batching_strategy": (None, "normal"),
    "model_class": (None, "llm"),
    "split": (None, "train"),
}
"""Values at which a refused key asks for nothing, where these are not the `NEUTRAL` ones."""

HARMLESS = by_key(
    {
        "asft_alpha": "acts only beside `use_asft_loss`, which is refused",
        "eaft_alpha": "acts only beside `use_eaft_loss`, which is refused",
        "mtp_loss_weight": "acts only beside `num_mtp_layers`, which is refused",
        "freeze_trainable_layers freeze_trainable_modules num_layer_trainable name_module_trainable": (
            "acts only with `finetuning_type: freeze`, which is refused"
        ),
        "module_dropout oft_block_size oft_target": "acts only with `finetuning_type: oft`, which is refused",
        "pissa_iter pissa_convert": "acts only beside `pissa_init`, which is refused",
        "init_special_tokens": "acts only beside new tokens, which are refused",
        "freeze_original_embeddings": "acts only beside `resize_vocab`, which is refused",
        "freeze_vision_tower freeze_multi_modal_projector": "models of text have no such part",
        "lora_bf16_mode": "adapters are float32",
        "loraplus_lr_embedding": "acts only beside `loraplus_lr_ratio`, which is refused",
        "galore_target galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise": (
            "acts only beside `use_galore`, which is refused"
        ),
        "apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
        "apollo_scale_type apollo_layerwise apollo_scale_front": "acts only beside `use_apollo`, which is refused",
        "badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio badam_mask_mode "
        "badam_verbose": "acts only beside `use_badam`, which is refused",
        "pref_beta pref_ftx pref_bco_weight pref_loss dpo_label_smoothing kto_chosen_weight kto_rejected_weight "
        "simpo_gamma ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards ref_model "
        "ref_model_adapters ref_model_quantization_bit reward_model reward_model_adapters "
        "reward_model_quantization_bit reward_model_type ld_alpha disable_dropout dpo_beta dpo_loss dpo_ftx "
        "kto_beta kto_ftx orpo_beta": "acts only in stages that are refused",
        "packing_similarity_threshold packing_embedding_model": "acts only beside `packing_strategy: semantic_aware`",
        "image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels "
        "video_min_pixels video_fps video_maxlen use_audio_in_video audio_sampling_rate media_dir "
        "image_resolution video_resolution": "rows are text; rows with pictures, films or sound are refused",
        "preprocessing_num_workers batching_workers": "the tokenizer uses all cores",
        "preprocessing_batch_size": "rows are tokenised a thousand at a time",
        "remove_unused_columns": "only the columns of the format are read, and the log names the others",
        "use_fast_tokenizer": "a fast tokenizer is used where there is one",
        "data_shared_file_system": "every process reads the same cache",
        "dataloader_pin_memory": "batches are small beside the model",
        "dataloader_persistent_workers dataloader_multiprocessing_context": "threads live as long as the run",
        "dataloader_drop_last": "every draw is full",
        "dataloader_in_order": "batches come in their order",
        "length_column_name": "lengths are counted in tokens",
        "length_penalty": "acts only with beams, which are refused",
        "predict_with_generate": "answers are generated in evaluation",
        "efficient_eval eval_do_concat_batches eval_use_gather_object eval_accumulation_steps batch_eval_metrics": (
            "evaluation keeps numbers and answers, no logits"
        ),
        "eval_on_each_dataset": "every task is always evaluated apart",
        "eval_on_start logging_first_step": "the untrained model is measured",
        "compute_accuracy": "each task has metrics of its own, to which token accuracy adds nothing",
        "include_for_metrics include_inputs_for_metrics": "metrics see question, answer and label",
        "prediction_loss_only": "loss and answers are both measured",
        "infer_backend infer_dtype use_kv_cache use_cache sample_backend offload_folder jit_mode_eval": (
            "answers come from the model that is trained, in its precision"
        ),
        "vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config sglang_maxlen "
        "sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend": (
            "answers come from the model that is trained"
        ),
        "export_dir export_size export_device export_legacy_format export_hub_model_id export_quantization_bit "
        "export_quantization_dataset export_quantization_nsamples export_quantization_maxlen": (
            "acts in `mtl-opt export`, which takes or refuses it"
        ),
        "hub_model_id hub_token hub_strategy hub_private_repo hub_always_push hub_revision push_to_hub_model_id "
        "push_to_hub_organization push_to_hub_token": "acts only beside `push_to_hub`, which is refused",
        "overwrite_output_dir": "a folder with another run is refused, one with this run is gone on with",
        "logging_dir": "TensorBoard reads `output_dir`",
        "save_dir": "results are written to `output_dir`",
        "logging_strategy": "`logging_steps` says when",
        "report_to project trackio_space_id trackio_bucket_id trackio_static_space_id use_swanlab swanlab_project "
        "swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url "
        "swanlab_lark_secret": "TensorBoard and trainer_log.jsonl are always written, and nothing else",
        "run_name": "the run is named by `output_dir`",
        "save_safetensors save_ckpt_as_hf": "adapters are always saved as safetensors, as peft writes them",
        "save_only_model": "checkpoints are always complete, so that a run can go on bit by bit",
        "save_on_each_node enable_jit_checkpoint": "process 0 writes checkpoints, when `save_steps` says",
        "restore_callback_states_from_checkpoint": "checkpoints hold all state of a run",
        "log_level log_level_replica log_on_each_node disable_tqdm print_param_status debug": (
            "process 0 writes the log"
        ),
        "logging_nan_inf_filter": "a loss that is not finite ends the run",
        "include_num_input_tokens_seen include_tokens_per_second include_effective_tokens_per_second": (
            "tokens are counted by `mtl-opt data plan`"
        ),
        "skip_memory_metrics": "`mtl-opt plan` foretells memory",
        "cache_dir hf_hub_token ms_hub_token om_hub_token use_modelscope_hub": (
            "the hub's own cache and token are used (`HF_HOME`, `HF_TOKEN`)"
        ),
        "hyper_parallel_args hyper_parallel_cp_size megatron_bridge_args kt_cpu_activation kt_weight_path "
        "kt_non_expert_weight_path kt_expert_checkpoint_path kt_use_lora_experts kt_lora_expert_num "
        "kt_optimize_rule cpu_infer chunk_size mode kt_lora_expert_intermediate_size cp_mode fp8_backend "
        "fp8_enable_fsdp_float8_all_gather": ("acts only beside a key that is refused"),
        "dp_size mp_replicate_size mp_shard_size local_rank master_addr master_port ray_run_name ray_storage_path "
        "ray_num_cpus_per_worker ray_init_kwargs ray_scope resources_per_worker placement_strategy "
        "dispatch_batches mp_parameters": "torchrun says how many processes there are",
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend": (
            "gradients are not reduced by DistributedDataParallel"
        ),
        "no_cuda use_cpu use_ipex use_mps_device tpu_num_cores": (
            "the device is the one there is (`CUDA_VISIBLE_DEVICES`)"
        ),
        "flash_attn": "transformers chooses the attention, which changes speed only",
        "use_unsloth use_unsloth_gc enable_liger_kernel use_liger_kernel liger_kernel_config use_v1_kernels "
        "kernel_config torch_compile_mode torchdynamo tf32 torch_empty_cache_steps auto_find_batch_size "
        "low_cpu_mem_usage quantization_device_map fp16_opt_level half_precision_backend fp16_backend": (
            "changes speed and memory only"
        ),
        "disable_gradient_checkpointing use_reentrant_gc gradient_checkpointing_kwargs "
        "activation_checkpointing_kwargs": "`gradient_checkpointing` decides",
        "enable_torch_profiler profiler_output_dir profiler_wait_steps profiler_warmup_steps "
        "profiler_active_steps profiler_repeat profiler_record_shapes profiler_profile_memory profiler_with_stack "
        "profile_modules": "no profile is written; it would change nothing that is trained",
    }
)
"""Keys that change nothing of what is trained or measured, with why; a value that asks for something is noted."""

TOKENIZER_TEMPLATES = by_key(
    {
        "aquila atom baichuan baichuan2 bailing bailing_v2 belle bluelm breeze chatglm2 chatglm3 codegeex2 "
        "codegeex4 cohere cpm cpm3 cpm4 dbrx deepseek deepseek3 deepseekcoder deepseekr1 ernie ernie_nothink "
        "exaone falcon falcon_h1 gemma gemma2 gemma3 gemma4 glm4 glm4_moe glmz1 gpt_oss granite3 granite4 hunyuan "
        "hunyuan_small index intern intern2 kimi_k2 lfm2 ling llama4 marco mimo mimo_v2 minimax1 minimax2 "
        "ministral ministral3 mistral mistral_small moonlight nanbeige olmo openchat openchat-3.6 opencoder orion "
        "phi phi4 phi4_mini phi_small qwen2 qwen2.5 qwen2_5 qwen3 qwen3_5 qwen3_next sailor seed_coder seed_oss "
        "skywork_o1 smollm smollm2 solar starchat tablegpt telechat telechat2 vicuna xuanyuan xverse yayi yi "
        "youtu yuan zephyr": "tokenizer"
    }
)
"""LLaMA-Factory's templates of model families whose tokenizers bring that template themselves."""
