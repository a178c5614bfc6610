OPERATORS = {
    "image": [
        {"image_size_filter": {"min_size": 0}},
        {"image_shape_filter": {}},
        {"image_aspect_ratio_filter": {"min_ratio": 0, "max_ratio": 1e9}},
        {"image_deduplicator": {"method": "phash"}},
    ],
    "video": [
        {"video_duration_filter": {}},
        {"video_resolution_filter": {}},
        {"video_aspect_ratio_filter": {"min_ratio": 0, "max_ratio": 1e9}},
        {"video_motion_score_filter": {"min_score": -2}},
        {"video_deduplicator": {}},
        {"video_extract_frames_mapper": {"frame_sampling_method": "all_frames", "output_format": "bytes"}},
        {
            "video_extract_frames_mapper": {
                "frame_sampling_method": "uniform",
                "duration": 0.5,
                "output_format": "bytes",
            }
        },
        {"video_split_by_duration_mapper": {"split_duration": 0.5}},
        {"video_resize_resolution_mapper": {"max_width": 32}},
    ],
}
