"""Keys of LLaMA-Factory, axolotl and Hugging Face that are renamed, implied, refused or dropped here."""

RENAMED = {
    "base_model": "model_name_or_path",
    "lora_r": "lora_rank",
    "lora_target_modules": "lora_target",
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
    "neat_packing": "packing",
    "activation_checkpointing": "gradient_checkpointing",
    "evaluation_strategy": "eval_strategy",
    "early_stopping_steps": "early_stopping_patience",
    "dataset_prepared_path": "tokenized_path",
}
"""Other names of keys."""

DONE_ANYWAY = {
    "stage": "rows are learnt as supervised answers",
    "do_train": "`mtl-opt train` trains",
    "do_eval": "evaluation runs before and after training, and every `eval_steps`",
    "do_predict": "`mtl-opt eval` measures a finished run",
    "overwrite_output_dir": "a folder that holds another run is refused, one that holds this run is gone on with",
    "logging_dir": "TensorBoard reads output_dir",
    "logging_strategy": "`logging_steps` says when",
    "logging_first_step": "the untrained model is measured",
    "report_to": "TensorBoard and trainer_log.jsonl are always written",
    "run_name": "the run is named by output_dir",
    "eval_on_each_dataset": "every task is always evaluated apart",
    "save_safetensors": "adapters are always saved as safetensors",
    "ddp_find_unused_parameters": "gradients are not reduced by DistributedDataParallel",
    "preprocessing_num_workers": "the tokenizer uses all cores",
    "preprocessing_batch_size": "rows are tokenised a thousand at a time",
    "remove_unused_columns": "only the columns of the format are read",
    "ignore_pad_token_for_loss": "padding is never learnt",
    "use_fast_tokenizer": "a fast tokenizer is used where there is one",
    "data_shared_file_system": "every process reads the same cache",
    "quantization_method": "bitsandbytes quantizes",
    "flash_attn": "transformers chooses the attention",
    "predict_with_generate": "answers are generated in evaluation",
    "cache_dir": "the hub's own cache is used",
    "include_num_input_tokens_seen": "tokens are counted by `mtl-opt data plan`",
    "prediction_loss_only": "loss and answers are both measured",
    "disable_tqdm": "bars are shown on a terminal only",
    "save_only_model": "checkpoints are always complete, so that a run can go on bit by bit",
    "disable_gradient_checkpointing": "`gradient_checkpointing` decides",
    "dataloader_pin_memory": "batches are small beside the model",
    "dataloader_persistent_workers": "threads live as long as the run",
    "dataloader_drop_last": "every draw is full",
}
"""Keys that ask for what happens anyway, or for what the run decides otherwise."""

REFUSED = {
    "deepspeed": "DeepSpeed sums gradients before anybody can take them apart; spread the model with `fsdp: base`, or "
    "use `mtl_opt.LossWeights` in a loop of your own",
}
"""Keys that would change what a run needs or learns, so that leaving them out silently would mislead."""

LLAMA_FACTORY = (
    "adapter_folder", "resize_vocab", "split_special_tokens", "add_tokens",
    "add_special_tokens", "new_special_tokens_config", "init_special_tokens", "model_revision", "low_cpu_mem_usage",
    "rope_scaling", "shift_attn", "mixture_of_depths", "use_unsloth", "use_unsloth_gc", "enable_liger_kernel",
    "moe_aux_loss_coef", "use_reentrant_gc", "upcast_layernorm", "upcast_lmhead_output", "train_from_scratch",
    "infer_backend", "offload_folder", "use_kv_cache", "use_v1_kernels", "infer_dtype", "hf_hub_token", "ms_hub_token",
    "om_hub_token", "print_param_status", "quantization_bit", "quantization_type", "quantization_device_map",
    "double_quantization", "media_dir", "eval_num_beams", "packing", "tool_format", "default_system",
    "enable_thinking", "freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules",
    "additional_target", "loraplus_lr_ratio", "loraplus_lr_embedding", "use_rslora", "use_dora", "pissa_init",
    "pissa_iter", "pissa_convert", "use_galore", "use_apollo", "use_badam", "use_swanlab",
    "pure_bf16", "use_llama_pro", "use_adam_mini", "use_muon", "use_dft_loss", "use_eaft_loss", "use_asft_loss",
    "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model", "compute_accuracy",
    "disable_shuffling", "include_effective_tokens_per_second", "do_sample", "temperature",
    "top_p", "top_k", "num_beams", "max_length", "repetition_penalty", "length_penalty", "skip_special_tokens",
    "image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen",
    "export_dir", "export_size", "export_device", "export_quantization_bit", "export_legacy_format",
    "export_hub_model_id",
    "ray_run_name", "ray_num_workers", "resources_per_worker", "placement_strategy", "ray_storage_path", "fp8",
)  # fmt: skip
"""Further keys of LLaMA-Factory's supervised fine-tuning, which nothing here honours."""

REMOVED = (
    "fp16_opt_level", "half_precision_backend", "no_cuda", "use_cpu", "use_ipex", "use_mps_device", "tpu_num_cores",
    "past_index", "fp16_backend", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token",
    "sharded_ddp",
    "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap", "ray_scope", "mp_parameters", "jit_mode_eval",
    "torchdynamo", "dispatch_batches", "split_batches", "include_inputs_for_metrics", "length_column_name",
    "include_tokens_per_second", "eval_do_concat_batches", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
    "generation_max_length", "generation_num_beams", "generation_config", "sortish_sampler", "log_level_replica",
)  # fmt: skip
"""Keys of TrainingArguments of other releases, and of its sequence-to-sequence form."""
