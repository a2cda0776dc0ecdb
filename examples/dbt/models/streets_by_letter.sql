{{ config(materialized="view") }}
select left(name, 1) as letter, count(*) as streets from {{ ref("streets") }} group by all
